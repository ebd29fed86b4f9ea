// See include/clinux_probe.h.
#define _GNU_SOURCE
#include "clinux_probe.h"

#include <errno.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>
#if defined(__x86_64__)
#include <cpuid.h>
#endif

void clx_cpuid(uint32_t leaf, uint32_t subleaf, uint32_t result[4]) {
  memset(result, 0, 4 * sizeof *result);
#if defined(__x86_64__)
  if (__get_cpuid_max(leaf & 0x80000000u, 0) < leaf) return;
  __cpuid_count(leaf, subleaf, result[0], result[1], result[2], result[3]);
#endif
}

// A child that only waits for what `arguments` asks for: it makes no call that could find a lock held by a thread of the
// parent, which is not there.
static long clone_child(struct clone_args *arguments) { return syscall(SYS_clone3, arguments, sizeof *arguments); }

int clx_try_set_tid(int pid) {
  struct clone_args space = {.flags = CLONE_NEWPID, .exit_signal = SIGCHLD};
  long first = clone_child(&space);
  if (first < 0) return -errno;
  if (first == 0) {
    pid_t wanted = pid;
    struct clone_args chosen = {
        .exit_signal = SIGCHLD, .set_tid = (uint64_t)(uintptr_t)&wanted, .set_tid_size = 1};
    long child = clone_child(&chosen);
    if (child == 0) _exit(0);
    if (child < 0) _exit(errno);
    _exit(child == pid && waitpid(pid, NULL, 0) == pid ? 0 : EINVAL);
  }
  int status = 0;
  while (waitpid((pid_t)first, &status, 0) < 0 && errno == EINTR) {}
  return WIFEXITED(status) ? -WEXITSTATUS(status) : -EINVAL;
}

int64_t clx_filesystem_type(const char *path) {
  struct statfs facts;
  return statfs(path, &facts) < 0 ? -errno : (int64_t)facts.f_type;
}
