#pragma once
#include <fcntl.h>
#include <linux/sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

// libFuzzer's entry (compiler-rt), which has no header of its own.
int LLVMFuzzerRunDriver(int *argc, char ***argv, int (*callback)(const uint8_t *data, size_t size));

// Starts a program with a log for its output and none of our descriptors: in a cgroup, unless that is -1, and with a PID,
// unless that is 0.
static inline int fuzz_spawn(const char *path, int log, int cgroup, int pid) {
  struct clone_args arguments = {.exit_signal = SIGCHLD};
  if (cgroup >= 0) {
    arguments.flags = CLONE_INTO_CGROUP;
    arguments.cgroup = (uint64_t)cgroup;
  }
  if (pid > 0) {
    arguments.set_tid = (uint64_t)&pid;
    arguments.set_tid_size = 1;
  }
  long child = syscall(SYS_clone3, &arguments, sizeof arguments);
  if (child != 0) return (int)child;
  char *const none[] = {NULL}, *const itself[] = {(char *)path, NULL};
  int null = open("/dev/null", O_RDWR);
  setsid();
  dup2(null, 0);
  dup2(log >= 0 ? log : null, 1);
  dup2(log >= 0 ? log : null, 2);
  syscall(SYS_close_range, 3, ~0U, 0);
  execve(path, itself, none);
  _exit(127);
}
