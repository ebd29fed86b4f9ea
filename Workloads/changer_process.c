// Kinds of state that a process or thread carries itself: names, limits, credentials, scheduling, places.
#define _GNU_SOURCE
#include "changer.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/securebits.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

// -- File mode creation mask

static void change_umask(void *state, struct random *random) {
  *(mode_t *)state = (mode_t)random_below(random, 01000);
  umask(*(mode_t *)state);
}
static void check_umask(void *state) { expect("umask", "mask", *(mode_t *)state, umask(*(mode_t *)state)); }
static void spoil_umask(void *state) { umask(*(mode_t *)state ^ 1); }

// -- Working directory

// The mask of another kind may have been at work, and a container's root has no capability to override modes.
bool make_readable_folder(const char *path) { return (!mkdir(path, 0755) || errno == EEXIST) && !chmod(path, 0755); }

struct place {
  char folders[3][4200];
  unsigned at;
};

static bool prepare_cwd(void *state, struct random *random) {
  struct place *place = state;
  (void)random;
  snprintf(place->folders[0], sizeof place->folders[0], "/");
  snprintf(place->folders[1], sizeof place->folders[1], "%s/one", changer_folder);
  snprintf(place->folders[2], sizeof place->folders[2], "%s/two", changer_folder);
  for (int index = 1; index < 3; index++)
    if (!make_readable_folder(place->folders[index])) return false;
  return true;
}
static void change_cwd(void *state, struct random *random) {
  struct place *place = state;
  place->at = (unsigned)random_below(random, 3);
  if (chdir(place->folders[place->at])) changed("cwd", "%s: %s", place->folders[place->at], strerror(errno));
}
static void check_cwd(void *state) {
  struct place *place = state;
  char found[4200] = "";
  if (!getcwd(found, sizeof found) || strcmp(found, place->folders[place->at]))
    changed("cwd", "set %s, found %s", place->folders[place->at], found);
}
static void spoil_cwd(void *state) {
  struct place *place = state;
  if (chdir(place->folders[(place->at + 1) % 3])) fail("spoiling");
}

// -- Name of a thread

static void change_name(void *state, struct random *random) {
  snprintf(state, 16, "t%llx", (unsigned long long)random_next(random) >> 8);
  prctl(PR_SET_NAME, state);
}
static void check_name(void *state) {
  char found[17] = "";
  prctl(PR_GET_NAME, found);
  if (strcmp(found, state)) changed("name", "set %s, found %s", (char *)state, found);
}
static void spoil_name(void *state) { (void)state, prctl(PR_SET_NAME, "spoiled"); }

// -- Resource limits: the soft one, anywhere from what is needed to the hard one

static const struct {
  int resource;
  rlim_t least, range;
} limits[] = {{RLIMIT_CORE, 0, 1 << 20},       {RLIMIT_NOFILE, 512, 256},        {RLIMIT_FSIZE, 1 << 30, 1 << 20},
              {RLIMIT_STACK, 8 << 20, 1 << 20}, {RLIMIT_SIGPENDING, 500, 500},    {RLIMIT_MSGQUEUE, 1000, 100000},
              {RLIMIT_MEMLOCK, 1 << 16, 4096},  {RLIMIT_RTTIME, 1 << 30, 1 << 20}, {RLIMIT_AS, 1ll << 44, 1 << 20}};
enum { LIMITS = sizeof limits / sizeof *limits };

static void change_limits(void *state, struct random *random) {
  struct rlimit *set = state;
  for (int index = 0; index < LIMITS; index++) {
    getrlimit(limits[index].resource, &set[index]);
    rlim_t soft = limits[index].least + random_below(random, limits[index].range);
    if (random_below(random, 4) == 0) soft = set[index].rlim_max;
    if (soft < set[index].rlim_max || soft == set[index].rlim_max) set[index].rlim_cur = soft;
    if (setrlimit(limits[index].resource, &set[index])) changed("rlimits", "setting: %s", strerror(errno));
  }
}
static void check_limits(void *state) {
  struct rlimit *set = state, found;
  for (int index = 0; index < LIMITS; index++) {
    getrlimit(limits[index].resource, &found);
    expect("rlimits", "soft limit", (long long)set[index].rlim_cur, (long long)found.rlim_cur);
    expect("rlimits", "hard limit", (long long)set[index].rlim_max, (long long)found.rlim_max);
  }
}
static void spoil_limits(void *state) {
  struct rlimit limit = ((struct rlimit *)state)[1];
  limit.rlim_cur -= 1;
  setrlimit(RLIMIT_NOFILE, &limit);
}

// -- What prctl sets and tells; no_new_privs can only be told

struct flags {
  int dumpable, death_signal, keep_capabilities, no_new_privileges, bits;
  bool bits_allowed;
};

static void change_dumpable(void *state, struct random *random) {
  *(int *)state = (int)random_below(random, 2);
  prctl(PR_SET_DUMPABLE, *(int *)state);
}
static void check_dumpable(void *state) { expect("dumpable", "flag", *(int *)state, prctl(PR_GET_DUMPABLE)); }
static void spoil_dumpable(void *state) { prctl(PR_SET_DUMPABLE, !*(int *)state); }

static bool prepare_flags(void *state, struct random *random) {
  struct flags *flags = state;
  (void)random;
  flags->no_new_privileges = prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0);
  flags->bits = prctl(PR_GET_SECUREBITS);
  flags->bits_allowed = flags->bits == 0 && !prctl(PR_SET_SECUREBITS, flags->bits);
  return true;
}
static void change_flags(void *state, struct random *random) {
  static const int signals[] = {0, SIGALRM, SIGVTALRM, SIGUSR2};
  struct flags *flags = state;
  flags->death_signal = signals[random_below(random, 4)];
  prctl(PR_SET_PDEATHSIG, flags->death_signal);
  if (flags->bits_allowed) {
    flags->bits = random_below(random, 2) ? SECBIT_NO_SETUID_FIXUP : 0;
    prctl(PR_SET_SECUREBITS, flags->bits);
  }
  flags->keep_capabilities = (int)random_below(random, 2);
  if (prctl(PR_SET_KEEPCAPS, flags->keep_capabilities)) flags->keep_capabilities = prctl(PR_GET_KEEPCAPS);
}
static void check_flags(void *state) {
  struct flags *flags = state;
  int found = -1;
  prctl(PR_GET_PDEATHSIG, &found);
  expect("flags", "pdeathsig", flags->death_signal, found);
  expect("flags", "keepcaps", flags->keep_capabilities, prctl(PR_GET_KEEPCAPS));
  expect("flags", "no_new_privs", flags->no_new_privileges, prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0));
  int kept = flags->keep_capabilities ? SECBIT_KEEP_CAPS : 0;
  expect("flags", "securebits", (flags->bits & ~SECBIT_KEEP_CAPS) | kept, prctl(PR_GET_SECUREBITS));
}
static void spoil_flags(void *state) { (void)state, prctl(PR_SET_PDEATHSIG, SIGXCPU); }

// -- Capabilities: effective ones dropped and raised again, inheritable ones changed

struct capabilities {
  uint64_t effective, permitted, inheritable, first_effective;
};

static struct capabilities read_capabilities(void) {
  struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
  struct __user_cap_data_struct data[2] = {{0}};
  syscall(SYS_capget, &header, data);
  return (struct capabilities){data[0].effective | (uint64_t)data[1].effective << 32,
                               data[0].permitted | (uint64_t)data[1].permitted << 32,
                               data[0].inheritable | (uint64_t)data[1].inheritable << 32, 0};
}
static bool write_capabilities(const struct capabilities *set) {
  struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
  struct __user_cap_data_struct data[2];
  for (int half = 0; half < 2; half++)
    data[half] = (struct __user_cap_data_struct){(uint32_t)(set->effective >> 32 * half),
                                                 (uint32_t)(set->permitted >> 32 * half),
                                                 (uint32_t)(set->inheritable >> 32 * half)};
  return !syscall(SYS_capset, &header, data);
}
static bool prepare_capabilities(void *state, struct random *random) {
  struct capabilities *set = state;
  (void)random;
  *set = read_capabilities();
  set->first_effective = set->effective;
  return set->permitted != 0;
}
// Only such as no other kind needs.
static void change_capabilities(void *state, struct random *random) {
  const uint64_t spare = 1ull << CAP_KILL | 1ull << CAP_NET_RAW | 1ull << CAP_MKNOD | 1ull << CAP_AUDIT_WRITE |
                         1ull << CAP_SYS_CHROOT | 1ull << CAP_SETFCAP | 1ull << CAP_NET_BIND_SERVICE | 1ull << CAP_CHOWN;
  struct capabilities *set = state;
  set->effective = set->first_effective & ~(spare & random_next(random));
  set->inheritable = set->permitted & spare & random_next(random);
  if (!write_capabilities(set)) changed("capabilities", "setting: %s", strerror(errno));
}
static void check_capabilities(void *state) {
  struct capabilities *set = state, found = read_capabilities();
  expect("capabilities", "effective", (long long)set->effective, (long long)found.effective);
  expect("capabilities", "permitted", (long long)set->permitted, (long long)found.permitted);
  expect("capabilities", "inheritable", (long long)set->inheritable, (long long)found.inheritable);
}
static void spoil_capabilities(void *state) {
  struct capabilities other = *(struct capabilities *)state;
  other.inheritable ^= other.permitted & (1ull << CAP_KILL | 1ull << CAP_CHOWN);
  write_capabilities(&other);
}

// -- Scheduling: nice value, policy, timer slack

static bool prepare_nice(void *state, struct random *random) {
  (void)state, (void)random;
  return !setpriority(PRIO_PROCESS, 0, 1) && !setpriority(PRIO_PROCESS, 0, 0);  // Lowering needs a capability.
}
static void change_nice(void *state, struct random *random) {
  setpriority(PRIO_PROCESS, 0, *(int *)state = (int)random_below(random, 5));
}
static void check_nice(void *state) { expect("nice", "value", *(int *)state, getpriority(PRIO_PROCESS, 0)); }
static void spoil_nice(void *state) { setpriority(PRIO_PROCESS, 0, *(int *)state + 1); }

static void change_policy(void *state, struct random *random) {
  int policy = random_below(random, 2) ? SCHED_BATCH : SCHED_OTHER;
  if (!sched_setscheduler(0, policy, &(struct sched_param){0})) *(int *)state = policy;
}
static void check_policy(void *state) { expect("policy", "policy", *(int *)state, sched_getscheduler(0)); }
static void spoil_policy(void *state) {
  sched_setscheduler(0, *(int *)state == SCHED_BATCH ? SCHED_OTHER : SCHED_BATCH, &(struct sched_param){0});
}

static void change_slack(void *state, struct random *random) {
  prctl(PR_SET_TIMERSLACK, *(unsigned long *)state = 1 + random_below(random, 100000));
}
static void check_slack(void *state) {
  expect("slack", "timer slack", (long long)*(unsigned long *)state, prctl(PR_GET_TIMERSLACK));
}
static void spoil_slack(void *state) { prctl(PR_SET_TIMERSLACK, *(unsigned long *)state + 7); }

// -- The robust list: the library's head, or one of our own that is empty

struct robust {
  struct robust_head {
    void *next;
    long offset;
    void *pending;
  } own, *first, *set;
};

static struct robust_head *read_robust(void) {
  struct robust_head *head = NULL;
  size_t length = 0;
  syscall(SYS_get_robust_list, 0, &head, &length);
  return head;
}
static bool prepare_robust(void *state, struct random *random) {
  struct robust *robust = state;
  (void)random;
  robust->own.next = &robust->own;
  robust->first = read_robust();
  return robust->first != NULL;
}
static void change_robust(void *state, struct random *random) {
  struct robust *robust = state;
  robust->set = random_below(random, 2) ? robust->first : &robust->own;
  syscall(SYS_set_robust_list, robust->set, sizeof *robust->set);
}
static void check_robust(void *state) {
  expect("robust-list", "head", (long long)(uintptr_t)((struct robust *)state)->set, (long long)(uintptr_t)read_robust());
}
static void spoil_robust(void *state) {
  struct robust *robust = state;
  syscall(SYS_set_robust_list, robust->set == &robust->own ? robust->first : &robust->own, sizeof robust->own);
}

// -- Areas of memory: mapped, protected, unmapped

enum { AREAS = 16 };

struct areas {
  uint8_t *place;
  int protection[AREAS];  // -1: not mapped.
  uint8_t content[AREAS];
};

static bool prepare_areas(void *state, struct random *random) {
  struct areas *areas = state;
  (void)random;
  areas->place = (uint8_t *)0x100000000000;
  memset(areas->protection, 0xff, sizeof areas->protection);
  return true;
}
static void change_areas(void *state, struct random *random) {
  static const int protections[] = {PROT_NONE, PROT_READ, PROT_READ | PROT_WRITE};
  struct areas *areas = state;
  unsigned index = (unsigned)random_below(random, AREAS);
  uint8_t *at = areas->place + index * PAGE;
  if (areas->protection[index] < 0) {
    if (mmap(at, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) != at)
      changed("areas", "slot %u is taken", index);
    *at = areas->content[index] = (uint8_t)random_next(random);
    areas->protection[index] = PROT_READ | PROT_WRITE;
  } else if (random_below(random, 3) == 0) {
    munmap(at, PAGE);
    areas->protection[index] = -1;
  } else mprotect(at, PAGE, areas->protection[index] = protections[random_below(random, 3)]);
}
// System calls probe what a plain access would die of.
static void check_areas(void *state) {
  struct areas *areas = state;
  for (unsigned index = 0; index < AREAS; index++) {
    uint8_t *at = areas->place + index * PAGE, resident;
    int protection = areas->protection[index];
    expect("areas", "mapped", protection >= 0, !mincore(at, PAGE, &resident));
    if (protection < 0) continue;
    bool readable = !syscall(SYS_faccessat, AT_FDCWD, at, F_OK) || errno != EFAULT;
    expect("areas", "readable", protection > 0, readable);
    if (readable) expect("areas", "content", areas->content[index], *at);
    if (!(protection & PROT_WRITE))
      expect("areas", "writable", 0, !syscall(SYS_clock_gettime, CLOCK_MONOTONIC, at));
  }
}
static void spoil_areas(void *state) {
  struct areas *areas = state;
  for (int index = 0; index < AREAS; index++)
    if (areas->protection[index] >= 0) munmap(areas->place + index * PAGE, PAGE);
  mmap(areas->place, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
}

#define KIND(title, type, action, ...)                                                                         \
  {.name = title, .size = sizeof(type), .change = change_##action, .check = check_##action, .spoil = spoil_##action, \
   __VA_ARGS__}

const struct kind process_kinds[] = {
    KIND("umask", mode_t, umask, ),
    KIND("cwd", struct place, cwd, .prepare = prepare_cwd),
    KIND("rlimits", struct rlimit[LIMITS], limits, ),
    KIND("dumpable", int, dumpable, ),
    KIND("areas", struct areas, areas, .prepare = prepare_areas),
    KIND("name", char[16], name, .of_thread = true),
    KIND("flags", struct flags, flags, .of_thread = true, .prepare = prepare_flags),
    KIND("capabilities", struct capabilities, capabilities, .of_thread = true, .prepare = prepare_capabilities),
    KIND("nice", int, nice, .of_thread = true, .prepare = prepare_nice),
    KIND("policy", int, policy, .of_thread = true),
    KIND("slack", unsigned long, slack, .of_thread = true),
    KIND("robust-list", struct robust, robust, .of_thread = true, .prepare = prepare_robust),
    {0}};
