// See include/clinux_perf.h.
#define _GNU_SOURCE
#include "clinux_perf.h"

#include <errno.h>
#include <linux/perf_event.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

_Static_assert(CLX_PERF_FAULTS_MINOR == PERF_COUNT_SW_PAGE_FAULTS_MIN, "config");
_Static_assert(CLX_PERF_FAULTS_MAJOR == PERF_COUNT_SW_PAGE_FAULTS_MAJ, "config");
_Static_assert(CLX_PERF_RECORD_LOST == PERF_RECORD_LOST && CLX_PERF_RECORD_SAMPLE == PERF_RECORD_SAMPLE, "records");

const unsigned long clx_PERF_EVENT_IOC_ENABLE = PERF_EVENT_IOC_ENABLE,
                    clx_PERF_EVENT_IOC_SET_FILTER = PERF_EVENT_IOC_SET_FILTER,
                    clx_PERF_EVENT_IOC_SET_OUTPUT = PERF_EVENT_IOC_SET_OUTPUT;

int clx_perf_event_open(const struct clx_perf_plan *plan) {
  struct perf_event_attr attr = {
      .size = sizeof attr,
      .type = plan->tracepoint ? PERF_TYPE_TRACEPOINT : PERF_TYPE_SOFTWARE,
      .config = plan->config,
      .sample_period = 1,
      .sample_type = PERF_SAMPLE_TID | PERF_SAMPLE_TIME | (plan->tracepoint ? PERF_SAMPLE_RAW : PERF_SAMPLE_ADDR),
      .disabled = 1,
      .watermark = 1,
      .wakeup_watermark = plan->watermark,
      .use_clockid = 1,
      .clockid = CLOCK_MONOTONIC,
  };
  unsigned long flags = PERF_FLAG_FD_CLOEXEC | (plan->is_cgroup ? PERF_FLAG_PID_CGROUP : 0);
  int fd = (int)syscall(SYS_perf_event_open, &attr, plan->target, plan->cpu, -1, flags);
  return fd < 0 ? -errno : fd;
}

uint64_t clx_perf_head(const void *page) {
  return __atomic_load_n(&((const struct perf_event_mmap_page *)page)->data_head, __ATOMIC_ACQUIRE);
}
void clx_perf_set_tail(void *page, uint64_t tail) {
  __atomic_store_n(&((struct perf_event_mmap_page *)page)->data_tail, tail, __ATOMIC_RELEASE);
}
