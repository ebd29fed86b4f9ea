// The code that runs inside a traced process.
//
// clx_blob: runs a batch (struct clx_batch at %r12) of system calls, so that one ptrace stop serves any number
// of them. Position independent, uses no stack. It ends in a trap (a stub: nobody else runs it), or wakes the
// tracer, lingers, and then returns through a signal frame to where the program was: a program whose tracer
// died in between repairs itself.
//
// clx_stub: the whole text of the stub, which only waits to be transmuted; clx_stub_syscall is the place where
// the first injected system call is stepped.

        .section .rodata
        .globl clx_blob_start, clx_blob_end, clx_stub_start, clx_stub_end, clx_stub_syscall

        .macro argument index, register
        movq    8+8*\index(%r13), \register
        btq     $\index, %r15
        jnc     1f
        imulq   $80, \register, \register
        movq    64+56(%r12,\register), \register
1:      btq     $8+\index, %r15
        jnc     2f
        movslq  (\register), \register
2:
        .endm

clx_blob_start:
        movq    8(%r12), %rbx
        leaq    64(%r12), %r13
        xorl    %r14d, %r14d
.Lnext: cmpq    %rbx, %r14
        jae     .Lend
        movq    64(%r13), %r15
        argument 0, %rdi
        argument 1, %rsi
        argument 2, %rdx
        argument 3, %r10
        argument 4, %r8
        argument 5, %r9
        movq    (%r13), %rax
        syscall
        movq    %rax, 56(%r13)
        incq    %r14
        movq    %r14, 16(%r12)
        testb   $1, 72(%r13)
        jz      .Lok
        cmpq    $-4095, %rax
        jae     .Lend
.Lok:   addq    $80, %r13
        jmp     .Lnext
.Lend:  cmpq    $0, 24(%r12)
        jne     .Lresume
.Ltrap: int3
        jmp     .Ltrap
.Lresume:
        movl    $1, (%r12)
        movl    $202, %eax              // futex(&done, FUTEX_WAKE, 1)
        movq    %r12, %rdi
        movl    $1, %esi
        movl    $1, %edx
        syscall
        movl    $271, %eax              // ppoll(NULL, 0, &linger, NULL): leaves the restart block alone
        xorl    %edi, %edi
        xorl    %esi, %esi
        leaq    40(%r12), %rdx
        xorl    %r10d, %r10d
        xorl    %r8d, %r8d
        syscall
        movq    32(%r12), %rsp
        movl    $15, %eax               // rt_sigreturn
        syscall
clx_blob_end:

clx_stub_start:
        movl    $34, %eax               // pause
clx_stub_syscall:
        syscall
        jmp     clx_stub_start
clx_stub_end:

        .section .note.GNU-stack,"",@progbits
