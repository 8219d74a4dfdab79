;; Asks for what nobody provides.
(module
  (import "elsewhere" "nothing" (func $nothing))
  (memory (export "memory") 1)
  (func (export "_start") (call $nothing)))
