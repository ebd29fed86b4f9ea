// Kinds of state of the process and its threads.
#define _GNU_SOURCE
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "shapes.h"

// -- limits: of resources, lowered and raised

static const struct {
  int resource;
  rlim_t least, most;
} ranges[] = {
    {RLIMIT_CORE, 0, 1 << 20},       {RLIMIT_STACK, 1 << 20, 8 << 20}, {RLIMIT_FSIZE, 1 << 30, 1ll << 40},
    {RLIMIT_NOFILE, 1000, 1024},     {RLIMIT_MSGQUEUE, 1000, 800000},  {RLIMIT_CPU, 100000, 200000},
    {RLIMIT_LOCKS, 10, 1000},        {RLIMIT_AS, 1ll << 40, 1ll << 42}, {RLIMIT_DATA, 1ll << 39, 1ll << 41},
};
struct limits {
  struct rlimit limits[COUNT(ranges)];
};

static void set_up_limits(void *state, struct random *random) {
  struct limits *all = state;
  (void)random;
  for (size_t index = 0; index < COUNT(ranges); index++) MUST(getrlimit(ranges[index].resource, &all->limits[index]));
}

static void turn_limits(void *state, struct random *random) {
  struct limits *all = state;
  for (size_t index = 0; index < COUNT(ranges); index++) {
    struct rlimit found;
    MUST(getrlimit(ranges[index].resource, &found));
    SAME("soft limit", all->limits[index].rlim_cur, found.rlim_cur);
    SAME("hard limit", all->limits[index].rlim_max, found.rlim_max);
  }
  size_t index = random_below(random, COUNT(ranges));
  struct rlimit *limit = &all->limits[index];
  rlim_t wanted = ranges[index].least + random_below(random, ranges[index].most - ranges[index].least);
  if (wanted <= limit->rlim_max) limit->rlim_cur = wanted;
  // Nobody may raise it again.
  if (random_below(random, 50) == 0 && limit->rlim_max > ranges[index].most) limit->rlim_max = ranges[index].most;
  MUST(setrlimit(ranges[index].resource, limit));
}

// -- credentials: of this thread, which stays root in effect

struct credentials {
  uint32_t user, saved_user, group, saved_group, groups[8];
  int count;
};

// The library would change those of every thread.
static void set_credentials(const struct credentials *all) {
  MUST(syscall(SYS_setgroups, all->count, all->groups));
  MUST(syscall(SYS_setresgid, all->group, 0, all->saved_group));
  MUST(syscall(SYS_setresuid, all->user, 0, all->saved_user));
}

static void set_up_credentials(void *state, struct random *random) {
  (void)random;
  set_credentials(state);
}

static void turn_credentials(void *state, struct random *random) {
  struct credentials *all = state;
  uint32_t real, effective, saved, groups[16];
  MUST(getresuid(&real, &effective, &saved));
  SAME("user", all->user, real);
  SAME("effective user", 0, effective);
  SAME("saved user", all->saved_user, saved);
  MUST(getresgid(&real, &effective, &saved));
  SAME("group", all->group, real);
  SAME("effective group", 0, effective);
  SAME("saved group", all->saved_group, saved);
  SAME("number of groups", all->count, getgroups(COUNT(groups), groups));
  SAME("groups", 0, memcmp(groups, all->groups, sizeof *groups * (size_t)all->count));
  all->user = (uint32_t)random_below(random, 3) * 1000;
  all->saved_user = (uint32_t)random_below(random, 3) * 1000;
  all->group = (uint32_t)random_below(random, 3) * 1000;
  all->saved_group = (uint32_t)random_below(random, 3) * 1000;
  all->count = (int)random_below(random, COUNT(all->groups) + 1);
  // In order, as the kernel keeps them.
  for (int index = 0; index < all->count; index++) all->groups[index] = (uint32_t)(index * 100 + (int)random_below(random, 100));
  set_credentials(all);
}

// -- attributes: of this thread: name, niceness, processors, slack; of the process: dumpable, OOM score

struct attributes {
  char name[16];
  int niceness, slack, dumpable;
  cpu_set_t processors, all_processors;
};

static void set_up_attributes(void *state, struct random *random) {
  struct attributes *all = state;
  (void)random;
  MUST(prctl(PR_GET_NAME, all->name));
  MUST(sched_getaffinity(0, sizeof all->processors, &all->processors));
  all->all_processors = all->processors;
  all->slack = prctl(PR_GET_TIMERSLACK);
  all->dumpable = prctl(PR_GET_DUMPABLE);
}

static void turn_attributes(void *state, struct random *random) {
  struct attributes *all = state;
  char name[16];
  cpu_set_t processors;
  MUST(prctl(PR_GET_NAME, name));
  if (strcmp(name, all->name)) wrong("the thread is called %s instead of %s", name, all->name);
  MUST(sched_getaffinity(0, sizeof processors, &processors));
  if (!CPU_EQUAL(&processors, &all->processors)) wrong("other processors");
  errno = 0;
  SAME("niceness", all->niceness, getpriority(PRIO_PROCESS, (id_t)syscall(SYS_gettid)));
  SAME("timer slack", all->slack, prctl(PR_GET_TIMERSLACK));
  SAME("dumpable", all->dumpable, prctl(PR_GET_DUMPABLE));
  switch (random_below(random, 5)) {
    case 0:
      snprintf(all->name, sizeof all->name, "shape %llu", (unsigned long long)random_below(random, 1000));
      MUST(prctl(PR_SET_NAME, all->name));
      break;
    case 1: {
      unsigned long processor = random_below(random, CPU_SETSIZE);
      all->processors = all->all_processors;
      if (CPU_ISSET(processor, &all->all_processors)) {
        CPU_ZERO(&all->processors);
        CPU_SET(processor, &all->processors);
      }
      MUST(sched_setaffinity(0, sizeof all->processors, &all->processors));
      break;
    }
    case 2:
      // It never falls again.
      if (all->niceness < 5) MUST(setpriority(PRIO_PROCESS, (id_t)syscall(SYS_gettid), ++all->niceness));
      break;
    case 3: MUST(prctl(PR_SET_TIMERSLACK, all->slack = 1000 + (int)random_below(random, 100000))); break;
    default: MUST(prctl(PR_SET_DUMPABLE, all->dumpable = (int)random_below(random, 2)));
  }
}

// -- threads: they come and go; each finds its own memory as it left it

enum { THREADS = 48 };
struct threads {
  struct worker {
    pthread_t thread;
    bool runs;
    atomic_bool stop;
    atomic_uint rounds;
    unsigned seen, number;
  } workers[THREADS];
};
static _Thread_local unsigned own_number;

static void *work(void *argument) {
  struct worker *worker = argument;
  uint64_t stack[64];
  char name[16], found[16];
  own_number = worker->number;
  snprintf(name, sizeof name, "worker %u", worker->number);
  prctl(PR_SET_NAME, name);
  for (unsigned index = 0; index < COUNT(stack); index++) stack[index] = mix(index + worker->number);
  while (!worker->stop) {
    SAME("thread-local number", worker->number, own_number);
    for (unsigned index = 0; index < COUNT(stack); index++) SAME("stack", mix(index + worker->number), stack[index]);
    prctl(PR_GET_NAME, found);
    if (strcmp(name, found)) wrong("a thread is called %s instead of %s", found, name);
    worker->rounds++;
    rest(2000 + worker->number % 7 * 500);
  }
  return (void *)(uintptr_t)worker->number;
}

static void start_worker(struct worker *worker, struct random *random) {
  pthread_attr_t attributes;
  worker->number = (unsigned)random_below(random, 1000000);
  worker->stop = false;
  worker->runs = true;
  pthread_attr_init(&attributes);
  pthread_attr_setstacksize(&attributes, 64 * 1024);
  SAME("pthread_create", 0, pthread_create(&worker->thread, &attributes, work, worker));
  pthread_attr_destroy(&attributes);
}

static void stop_worker(struct worker *worker) {
  void *number;
  worker->stop = true;
  SAME("pthread_join", 0, pthread_join(worker->thread, &number));
  SAME("what the thread returned", worker->number, (uintptr_t)number);
  worker->runs = false;
}

static void turn_threads(void *state, struct random *random) {
  struct threads *all = state;
  struct worker *worker = &all->workers[random_below(random, THREADS)];
  if (!worker->runs) return start_worker(worker, random);
  unsigned rounds = worker->rounds;
  for (unsigned waited = 0; worker->rounds == rounds; waited++) {
    if (waited == 20000) wrong("thread %u does not run", worker->number);
    rest(1000);
  }
  if (random_below(random, 2)) stop_worker(worker);
}

static void set_up_threads(void *state, struct random *random) {
  for (unsigned index = 0; index < THREADS / 2; index++) turn_threads(state, random);
}

// -- sleepers: threads that wait in the kernel; each is woken by what it waits for and by nothing else

enum { SLEEPERS = 4 };
struct sleepers {
  int pipes[2][2];
  pthread_mutex_t mutex;
  pthread_cond_t condition;
  unsigned wanted;  // Guarded by the mutex.
  atomic_uint woken[SLEEPERS];
  unsigned asked[SLEEPERS];
};

static void *sleep_in_read(void *argument) {
  struct sleepers *all = argument;
  for (uint8_t byte = 0;; all->woken[0]++) {
    SAME("read", 1, read(all->pipes[0][0], &byte, 1));
    SAME("byte", (uint8_t)all->woken[0], byte);
  }
}
static void *sleep_in_poll(void *argument) {
  struct sleepers *all = argument;
  for (uint8_t byte = 0;; all->woken[1]++) {
    struct pollfd other = {.fd = all->pipes[1][0], .events = POLLIN};
    SAME("poll", 1, poll(&other, 1, -1));
    SAME("read", 1, read(other.fd, &byte, 1));
  }
}
static void *sleep_in_wait(void *argument) {
  struct sleepers *all = argument;
  pthread_mutex_lock(&all->mutex);
  for (;; all->woken[2]++)
    while (all->wanted == all->woken[2]) SAME("wait", 0, pthread_cond_wait(&all->condition, &all->mutex));
}
static void *sleep_for_a_time(void *argument) {
  struct sleepers *all = argument;
  for (;; all->woken[3]++) {
    uint64_t start = now_ns();
    struct timespec time = timespec_of(30 * MILLISECOND);
    SAME("nanosleep", 0, nanosleep(&time, NULL));
    if (now_ns() - start < 30 * MILLISECOND) wrong("nanosleep has ended early");
  }
}

static void set_up_sleepers(void *state, struct random *random) {
  struct sleepers *all = state;
  (void)random;
  for (unsigned index = 0; index < 2; index++) MUST(pipe2(all->pipes[index], O_CLOEXEC));
  pthread_mutex_init(&all->mutex, NULL);
  pthread_cond_init(&all->condition, NULL);
  void *(*const bodies[SLEEPERS])(void *) = {sleep_in_read, sleep_in_poll, sleep_in_wait, sleep_for_a_time};
  for (unsigned index = 0; index < SLEEPERS; index++) start_thread(bodies[index], all, 64 * 1024);
}

static void turn_sleepers(void *state, struct random *random) {
  struct sleepers *all = state;
  unsigned index = (unsigned)random_below(random, 3);
  uint8_t byte = (uint8_t)all->asked[index]++;
  if (index < 2) SAME("write", 1, write(all->pipes[index][1], &byte, 1));
  if (index == 2) {
    pthread_mutex_lock(&all->mutex);
    all->wanted++;
    pthread_cond_signal(&all->condition);
    pthread_mutex_unlock(&all->mutex);
  }
  for (unsigned waited = 0; all->woken[index] != all->asked[index]; waited++) {
    if (waited == 200000) wrong("sleeper %u does not wake", index);
    rest(100);
  }
}

const struct kind process_kinds[] = {
    {"limits", NULL, sizeof(struct limits), set_up_limits, turn_limits, NULL},
    {"credentials", NULL, sizeof(struct credentials), set_up_credentials, turn_credentials, NULL},
    {"attributes", NULL, sizeof(struct attributes), set_up_attributes, turn_attributes, NULL},
    {"threads", NULL, sizeof(struct threads), set_up_threads, turn_threads, NULL},
    {"sleepers", NULL, sizeof(struct sleepers), set_up_sleepers, turn_sleepers, NULL},
    {0},
};
