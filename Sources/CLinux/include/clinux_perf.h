// perf_event_open: page faults as samples in a ring buffer. Every function returns its value or -errno.
#ifndef CLINUX_PERF_H
#define CLINUX_PERF_H

#include <stdint.h>

/// Every occurrence is a sample: TID, TIME (CLOCK_MONOTONIC), then ADDR for a software event, RAW for a tracepoint.
/// The reader is woken when another `watermark` bytes have been written.
struct clx_perf_plan {
  uint32_t tracepoint;   // else a software event
  uint32_t watermark;
  uint64_t config;       // CLX_PERF_FAULTS_*, or the tracepoint's id
  int target;            // descriptor of a cgroup's folder, or a TID (0: the caller's)
  int is_cgroup;
  int cpu;               // -1: wherever the task runs
};
enum { CLX_PERF_FAULTS_MINOR = 5, CLX_PERF_FAULTS_MAJOR = 6 };
enum { CLX_PERF_RECORD_LOST = 2, CLX_PERF_RECORD_SAMPLE = 9 };
/// Opens the event, disabled.
int clx_perf_event_open(const struct clx_perf_plan *plan);
extern const unsigned long clx_PERF_EVENT_IOC_ENABLE, clx_PERF_EVENT_IOC_SET_FILTER, clx_PERF_EVENT_IOC_SET_OUTPUT;

/// The ring's head, and its tail given back to the kernel; `page` is the first page of the mapping.
uint64_t clx_perf_head(const void *page);
void clx_perf_set_tail(void *page, uint64_t tail);

#endif
