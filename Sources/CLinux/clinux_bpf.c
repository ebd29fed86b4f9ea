// See include/clinux_bpf.h.
#define _GNU_SOURCE
#include "clinux_bpf.h"

#include <errno.h>
#include <linux/bpf.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

_Static_assert(sizeof(struct clx_bpf_instruction) == sizeof(struct bpf_insn), "struct bpf_insn");

static int call(int command, union bpf_attr *attributes) {
  long result = syscall(SYS_bpf, command, attributes, sizeof *attributes);
  return result < 0 ? -errno : (int)result;
}

int clx_bpf_hash(uint32_t key_size, uint32_t value_size, uint32_t entries) {
  union bpf_attr attributes = {0};
  attributes.map_type = BPF_MAP_TYPE_HASH;
  attributes.key_size = key_size;
  attributes.value_size = value_size;
  attributes.max_entries = entries;
  return call(BPF_MAP_CREATE, &attributes);
}
int clx_bpf_ring(uint32_t bytes) {
  union bpf_attr attributes = {0};
  attributes.map_type = BPF_MAP_TYPE_RINGBUF;
  attributes.max_entries = bytes;
  return call(BPF_MAP_CREATE, &attributes);
}
static int element(int command, int map, const void *key, const void *value) {
  union bpf_attr attributes = {0};
  attributes.map_fd = (uint32_t)map;
  attributes.key = (uint64_t)key;
  attributes.value = (uint64_t)value;
  return call(command, &attributes);
}
int clx_bpf_update(int map, const void *key, const void *value) {
  return element(BPF_MAP_UPDATE_ELEM, map, key, value);
}
int clx_bpf_lookup(int map, const void *key, void *value) { return element(BPF_MAP_LOOKUP_ELEM, map, key, value); }
int clx_bpf_load(const struct clx_bpf_instruction *instructions, uint32_t count) {
  union bpf_attr attributes = {0};
  attributes.prog_type = BPF_PROG_TYPE_RAW_TRACEPOINT;
  attributes.insns = (uint64_t)instructions;
  attributes.insn_cnt = count;
  // Reading the kernel's memory is for programs that say that they may be used under the GPL too.
  attributes.license = (uint64_t)"Dual BSD/GPL";
  return call(BPF_PROG_LOAD, &attributes);
}
int clx_bpf_attach(int program, const char *tracepoint) {
  union bpf_attr attributes = {0};
  attributes.raw_tracepoint.name = (uint64_t)tracepoint;
  attributes.raw_tracepoint.prog_fd = (uint32_t)program;
  return call(BPF_RAW_TRACEPOINT_OPEN, &attributes);
}

uint64_t clx_bpf_position(const void *page) { return __atomic_load_n((const uint64_t *)page, __ATOMIC_ACQUIRE); }
void clx_bpf_set_position(void *page, uint64_t position) {
  __atomic_store_n((uint64_t *)page, position, __ATOMIC_RELEASE);
}
