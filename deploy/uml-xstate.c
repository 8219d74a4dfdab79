/* Lets User-Mode Linux run on processors with more register state than it knows of (AMX: 8 KB of tiles).
 *
 * It sets a process's extended state with a buffer of its own size; the host takes the whole state or none, and answers
 * EFAULT. Preloaded, this completes what is set with what the process has: guests never use the rest.
 * (Linux does so by itself since 6.13: "um: Fix FP register size for XSTATE/XSAVE".)
 */
#include <elf.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

long ptrace(enum __ptrace_request request, ...) {
    static __thread char state[1 << 16] __attribute__((aligned(64)));
    struct iovec whole = {state, sizeof state};
    va_list rest;
    va_start(rest, request);
    pid_t pid = va_arg(rest, pid_t);
    void *addr = va_arg(rest, void *), *data = va_arg(rest, void *);
    va_end(rest);
    if (request == PTRACE_SETREGSET && (unsigned long)addr == NT_X86_XSTATE) {
        struct iovec *given = data;
        if (syscall(SYS_ptrace, PTRACE_GETREGSET, pid, addr, &whole) == 0 && given->iov_len < whole.iov_len) {
            memcpy(state, given->iov_base, given->iov_len);
            data = &whole;
        }
    }
    if (request >= PTRACE_PEEKTEXT && request <= PTRACE_PEEKUSER) { /* the system call writes what libc's returns */
        long word, answer = syscall(SYS_ptrace, request, pid, addr, &word);
        return answer < 0 ? answer : word;
    }
    return syscall(SYS_ptrace, request, pid, addr, data);
}
