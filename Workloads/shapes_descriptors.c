// Kinds of state behind descriptors that are no files: pipes, counters, epoll sets.
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "shapes.h"

// -- pipes: with content that waits, of several sizes, one in packets

enum { PIPES = 5, PACKET = 200 };
struct pipes {
  struct pipe {
    int ends[2], size;
    uint64_t written, read;
  } pipes[PIPES];
};

static void set_up_pipes(void *state, struct random *random) {
  struct pipes *all = state;
  for (unsigned index = 0; index < PIPES; index++) {
    struct pipe *pipe = &all->pipes[index];
    MUST(pipe2(pipe->ends, O_NONBLOCK | O_CLOEXEC | (index == 0 ? O_DIRECT : 0)));
    pipe->size = MUST(fcntl(pipe->ends[1], F_SETPIPE_SZ, 4096 << random_below(random, 6)));
  }
}

static void turn_pipe(struct pipes *all, unsigned index, struct random *random) {
  struct pipe *pipe = &all->pipes[index];
  uint8_t bytes[8192];
  int waiting;
  SAME("size of the pipe", pipe->size, fcntl(pipe->ends[0], F_GETPIPE_SZ));
  MUST(ioctl(pipe->ends[0], FIONREAD, &waiting));
  SAME("bytes that wait", pipe->written - pipe->read, waiting);
  // The first one works in packets, each as long as the others.
  size_t count = index == 0 ? PACKET : 1 + random_below(random, sizeof bytes);
  if (random_below(random, 2)) {
    fill_bytes(bytes, count, index, pipe->written);
    ssize_t written = write(pipe->ends[1], bytes, count);
    if (written < 0 && errno != EAGAIN) wrong("write: %s", strerror(errno));
    if (written > 0) pipe->written += (uint64_t)written;
  } else {
    // More room than a packet needs does not join two.
    ssize_t got = read(pipe->ends[0], bytes, index == 0 ? sizeof bytes : count);
    if (got < 0 && (errno != EAGAIN || waiting)) wrong("read: %s", strerror(errno));
    if (got < 0) return;
    if (index == 0) SAME("bytes of a packet", PACKET, got);
    check_bytes("pipe", bytes, (size_t)got, index, pipe->read);
    pipe->read += (uint64_t)got;
  }
}

static void turn_pipes(void *state, struct random *random) {
  for (unsigned index = 0; index < PIPES; index++) turn_pipe(state, index, random);
}

// -- counters: eventfds, plain and as semaphores, closed and made again

enum { COUNTERS = 40 };
struct counters {
  struct counter {
    int number;
    bool semaphore;
    uint64_t value;
  } counters[COUNTERS];
};

static void make_counter(struct counter *counter, struct random *random) {
  counter->semaphore = random_below(random, 2);
  counter->value = random_below(random, 5);
  counter->number =
      MUST(eventfd((unsigned)counter->value, EFD_NONBLOCK | EFD_CLOEXEC | (counter->semaphore ? EFD_SEMAPHORE : 0)));
}

static void set_up_counters(void *state, struct random *random) {
  struct counters *all = state;
  for (unsigned index = 0; index < COUNTERS; index++) make_counter(&all->counters[index], random);
}

static void turn_counters(void *state, struct random *random) {
  struct counters *all = state;
  for (unsigned time = 0; time < 8; time++) {
    struct counter *counter = &all->counters[random_below(random, COUNTERS)];
    uint64_t value = 1 + random_below(random, 1000), got = 0;
    switch (random_below(random, 3)) {
      case 0:
        SAME("bytes written", 8, write(counter->number, &value, 8));
        counter->value += value;
        break;
      case 1:
        if (read(counter->number, &got, 8) < 0 && errno != EAGAIN) wrong("read: %s", strerror(errno));
        value = counter->semaphore ? counter->value > 0 : counter->value;
        SAME("value", value, got);
        counter->value -= value;
        break;
      default:
        MUST(close(counter->number));
        make_counter(counter, random);
    }
  }
}

// -- epoll: a set that watches numbers which are duplicated, closed and used again

enum { WATCHED = 8, HANDLES = 4, WATCHES = WATCHED * HANDLES };
struct epoll {
  int set;
  uint64_t next;
  struct watched {           // An open file.
    int handles[HANDLES];    // Its numbers; -1: none.
    struct {
      int number;            // The number by which it was added; closed since, perhaps. -1: no watch.
      uint64_t data;
    } watches[HANDLES];
  } files[WATCHED];
};

static void make_watched(struct watched *file) {
  for (unsigned index = 0; index < HANDLES; index++) file->handles[index] = file->watches[index].number = -1;
  file->handles[0] = MUST(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
}

static void set_up_epoll(void *state, struct random *random) {
  struct epoll *all = state;
  (void)random;
  all->set = MUST(epoll_create1(EPOLL_CLOEXEC));
  for (unsigned index = 0; index < WATCHED; index++) make_watched(&all->files[index]);
}

static int some_handle(const struct watched *file) {
  for (unsigned index = 0; index < HANDLES; index++)
    if (file->handles[index] >= 0) return file->handles[index];
  wrong("a file without a number");
}

// A write to the file makes just its own watches ready.
static void check_watched(struct epoll *all, struct watched *file) {
  struct epoll_event events[WATCHES];
  int handle = some_handle(file), count, wanted = 0;
  SAME("bytes written", 8, write(handle, &(uint64_t){1}, 8));
  count = MUST(epoll_wait(all->set, events, WATCHES, 0));
  for (unsigned index = 0; index < HANDLES; index++) {
    if (file->watches[index].number < 0) continue;
    wanted++;
    bool found = false;
    for (int event = 0; event < count; event++) found |= events[event].data.u64 == file->watches[index].data;
    if (!found) wrong("no event of the watch %llu (%d events)", (unsigned long long)file->watches[index].data, count);
  }
  SAME("events", wanted, count);
  uint64_t value = 0;
  SAME("bytes read", 8, read(handle, &value, 8));
  SAME("counter", 1, value);
}

static void watch(struct epoll *all, struct watched *file, int number) {
  unsigned place = 0;
  for (unsigned index = 0; index < HANDLES; index++) {
    if (file->watches[index].number == number) return;
    if (file->watches[index].number < 0) place = index;
  }
  if (file->watches[place].number >= 0) return;
  struct epoll_event event = {.events = EPOLLIN, .data.u64 = ++all->next};
  MUST(epoll_ctl(all->set, EPOLL_CTL_ADD, number, &event));
  file->watches[place].number = number;
  file->watches[place].data = all->next;
}

static void change_watch(struct epoll *all, struct watched *file, int number, bool remove) {
  for (unsigned index = 0; index < HANDLES; index++) {
    if (file->watches[index].number != number) continue;
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = ++all->next};
    MUST(epoll_ctl(all->set, remove ? EPOLL_CTL_DEL : EPOLL_CTL_MOD, number, &event));
    file->watches[index].number = remove ? -1 : number;
    file->watches[index].data = all->next;
  }
}

static void turn_epoll(void *state, struct random *random) {
  struct epoll *all = state;
  for (unsigned index = 0; index < WATCHED; index++) check_watched(all, &all->files[index]);
  struct watched *file = &all->files[random_below(random, WATCHED)];
  int *handle = &file->handles[random_below(random, HANDLES)];
  switch (random_below(random, 5)) {
    case 0:
      if (*handle < 0) *handle = MUST(fcntl(some_handle(file), F_DUPFD_CLOEXEC, 3));
      break;
    case 1:  // The watch stays as long as the file has a number.
      if (*handle < 0) break;
      MUST(close(*handle));
      *handle = -1;
      for (unsigned index = 0; index < HANDLES; index++)
        if (file->handles[index] >= 0) return;
      make_watched(file);
      break;
    case 2: change_watch(all, file, *handle < 0 ? -2 : *handle, random_below(random, 2)); break;
    default:
      if (*handle >= 0) watch(all, file, *handle);
  }
}

const struct kind descriptor_kinds[] = {
    {"pipes", NULL, sizeof(struct pipes), set_up_pipes, turn_pipes, NULL},
    {"counters", NULL, sizeof(struct counters), set_up_counters, turn_counters, NULL},
    {"epoll", NULL, sizeof(struct epoll), set_up_epoll, turn_epoll, NULL},
    {0},
};
