// What only the probe of the kernel asks for.
#ifndef CLINUX_PROBE_H
#define CLINUX_PROBE_H

#include <stdint.h>

/// CPUID of a leaf; all zero on other architectures.
void clx_cpuid(uint32_t leaf, uint32_t subleaf, uint32_t result[4]);
/// Whether a child can be born with a chosen PID (clone3 with set_tid): 0 or -errno. Tried in a PID namespace made for it,
/// where the number is free whatever else this machine does; both children end at once and are reaped.
int clx_try_set_tid(int pid);
/// f_type of statfs(2), or -errno.
int64_t clx_filesystem_type(const char *path);

#endif
