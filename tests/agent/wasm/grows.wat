;; Takes memory, a page (64 KiB) at a time, until it gets no more; its exit status is a quarter of the pages it has.
(module
  (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))
  (memory (export "memory") 1)
  (func (export "_start")
    (loop $more
      (br_if $more (i32.ne (memory.grow (i32.const 1)) (i32.const -1))))
    (call $proc_exit (i32.div_u (memory.size) (i32.const 4)))))
