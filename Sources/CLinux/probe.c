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

int clx_try_set_tid(int pid) {
  pid_t wanted = pid;
  struct clone_args arguments = {
      .exit_signal = SIGCHLD, .set_tid = (uint64_t)(uintptr_t)&wanted, .set_tid_size = 1};
  long child = syscall(SYS_clone3, &arguments, sizeof arguments);
  if (child == 0) _exit(0);
  if (child < 0) return -errno;
  while (waitpid((pid_t)child, NULL, 0) < 0 && errno == EINTR) {}
  return 0;
}

int64_t clx_filesystem_type(const char *path) {
  struct statfs facts;
  return statfs(path, &facts) < 0 ? -errno : (int64_t)facts.f_type;
}
