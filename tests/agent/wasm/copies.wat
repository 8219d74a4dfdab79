;; Copies its first input to /output/copy. Its exit status is WASI's errno for an attempt to make a file among the inputs.
(module
  (import "wasi_snapshot_preview1" "path_open"
    (func $path_open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_read" (func $fd_read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))
  (memory (export "memory") 1)
  (data (i32.const 64) "input-0")
  (data (i32.const 80) "copy")
  ;; Folders that are open from the start: 3 is /inputs, 4 is /output. Rights: 2 reads, 64 writes. Flag 1 creates.
  (func (export "_start")
    (drop (call $path_open (i32.const 3) (i32.const 0) (i32.const 64) (i32.const 7) (i32.const 0)
      (i64.const 2) (i64.const 2) (i32.const 0) (i32.const 0)))
    (i32.store (i32.const 8) (i32.const 1024))
    (i32.store (i32.const 12) (i32.const 4096))
    (drop (call $fd_read (i32.load (i32.const 0)) (i32.const 8) (i32.const 1) (i32.const 16)))
    (i32.store (i32.const 12) (i32.load (i32.const 16)))
    (drop (call $path_open (i32.const 4) (i32.const 0) (i32.const 80) (i32.const 4) (i32.const 1)
      (i64.const 64) (i64.const 64) (i32.const 0) (i32.const 4)))
    (drop (call $fd_write (i32.load (i32.const 4)) (i32.const 8) (i32.const 1) (i32.const 16)))
    (call $proc_exit
      (call $path_open (i32.const 3) (i32.const 0) (i32.const 80) (i32.const 4) (i32.const 1)
        (i64.const 64) (i64.const 64) (i32.const 0) (i32.const 4)))))
