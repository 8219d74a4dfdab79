;; Adds the numbers up to a million, and prints whether the sum is the known one.
(module
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 16) "right\n")
  (data (i32.const 24) "wrong\n")
  (func (export "_start") (local $n i64) (local $sum i64)
    (loop $again
      (local.set $n (i64.add (local.get $n) (i64.const 1)))
      (local.set $sum (i64.add (local.get $sum) (local.get $n)))
      (br_if $again (i64.lt_u (local.get $n) (i64.const 1000000))))
    (i32.store (i32.const 0)
      (select (i32.const 16) (i32.const 24) (i64.eq (local.get $sum) (i64.const 500000500000))))
    (i32.store (i32.const 4) (i32.const 6))
    (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))))
