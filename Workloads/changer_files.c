// Kinds of state behind descriptors.
#define _GNU_SOURCE
#include "changer.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

// -- Descriptors: opened, duplicated, renumbered and closed; regular files, directories, devices

enum { SLOTS = 12, FILES = 3, FIRST_NUMBER = 200, NUMBERS = 60, LARGEST_FILE = 256 * 1024 };

enum what { REGULAR, FOLDER, DEVICE_NULL, DEVICE_ZERO, KINDS_OF_FILE };

struct descriptors {
  struct open {  // An open file, shared by the descriptors that refer to it.
    enum what what;
    unsigned file, references;
    off_t offset;
    int flags;  // O_APPEND and O_NONBLOCK.
  } opens[NUMBERS];
  struct {
    bool used, close_on_exec;
    unsigned open;
  } numbers[NUMBERS];
  off_t sizes[FILES];
  char paths[FILES][4200], folders[2][4200];
};

// What a file holds at each place: checkable wherever the offset is.
static uint8_t byte_of(unsigned file, off_t place) { return (uint8_t)mix((uint64_t)place * FILES + file); }

static bool prepare_descriptors(void *state, struct random *random) {
  struct descriptors *all = state;
  (void)random;
  for (int place = 0; place < NUMBERS; place++) close(FIRST_NUMBER + place);  // Whatever was inherited there.
  for (int index = 0; index < 2; index++) {
    char *path = all->folders[index], mark[4300];
    snprintf(path, sizeof all->folders[0], "%s/%s", changer_folder, index ? "two" : "one");
    if (!make_readable_folder(path)) return false;
    snprintf(mark, sizeof mark, "%s/mark", path);
    close(open(mark, O_WRONLY | O_CREAT | O_CLOEXEC, index ? 0600 : 0644));
    chmod(mark, index ? 0600 : 0644);
  }
  for (unsigned index = 0; index < FILES; index++) {
    snprintf(all->paths[index], sizeof all->paths[0], "%s/file%u", changer_folder, index);
    int file = open(all->paths[index], O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (file < 0 || fchmod(file, 0644)) return false;
    close(file);
  }
  return true;
}

static unsigned free_open(struct descriptors *all) {
  unsigned index = 0;
  while (all->opens[index].references) index++;
  return index;
}

static void refused(const char *what) { changed("descriptors", "%s: %s", what, strerror(errno)); }

static void open_one(struct descriptors *all, struct random *random, unsigned place) {
  enum what what = random_below(random, 2) ? REGULAR : random_below(random, KINDS_OF_FILE);
  unsigned index = free_open(all), file = (unsigned)random_below(random, what == REGULAR ? FILES : 2);
  const char *path = what == REGULAR ? all->paths[file] : what == FOLDER ? all->folders[file]
                     : what == DEVICE_NULL ? "/dev/null" : "/dev/zero";
  int got = open(path, (what == FOLDER ? O_RDONLY | O_DIRECTORY : O_RDWR) | O_CLOEXEC);
  if (got < 0 && what >= DEVICE_NULL) return;  // A file system without devices.
  if (got < 0) refused(path);
  if (dup3(got, FIRST_NUMBER + (int)place, O_CLOEXEC) < 0) refused("dup3");
  close(got);
  all->opens[index] = (struct open){.what = what, .file = file, .references = 1};
  all->numbers[place].used = all->numbers[place].close_on_exec = true;
  all->numbers[place].open = index;
}

static void close_one(struct descriptors *all, unsigned place) {
  if (close(FIRST_NUMBER + (int)place)) refused("close");
  all->opens[all->numbers[place].open].references--;
  all->numbers[place].used = false;
}

static void duplicate(struct descriptors *all, unsigned place, unsigned to, bool close_on_exec) {
  if (place == to) return;
  if (dup3(FIRST_NUMBER + (int)place, FIRST_NUMBER + (int)to, close_on_exec ? O_CLOEXEC : 0) < 0) refused("dup3");
  if (all->numbers[to].used) all->opens[all->numbers[to].open].references--;
  all->numbers[to] = all->numbers[place];
  all->numbers[to].close_on_exec = close_on_exec;
  all->opens[all->numbers[to].open].references++;
}

static void set_flags(struct open *open, int number, int flags) {
  if (open->what == REGULAR && !fcntl(number, F_SETFL, flags)) open->flags = flags;
}

static void write_file(struct descriptors *all, struct random *random, struct open *open, int number) {
  uint8_t bytes[600];
  off_t from = open->flags & O_APPEND ? all->sizes[open->file] : open->offset;
  size_t length = 1 + random_below(random, sizeof bytes);
  if (open->what != REGULAR || from > all->sizes[open->file] || from + (off_t)length > LARGEST_FILE) return;
  for (size_t index = 0; index < length; index++) bytes[index] = byte_of(open->file, from + (off_t)index);
  if (write(number, bytes, length) != (ssize_t)length) refused("write");
  open->offset = from + (off_t)length;
  if (open->offset > all->sizes[open->file]) all->sizes[open->file] = open->offset;
}

static void seek(struct descriptors *all, struct random *random, struct open *open, int number) {
  if (open->what != REGULAR) return;
  if (all->sizes[open->file] > LARGEST_FILE - 4096) {
    if (truncate(all->paths[open->file], 0)) refused("truncate");
    all->sizes[open->file] = 0;
  }
  open->offset = (off_t)random_below(random, (uint64_t)all->sizes[open->file] + 1);
  if (lseek(number, open->offset, SEEK_SET) != open->offset) refused("lseek");
}

static unsigned used_numbers(const struct descriptors *all) {
  unsigned used = 0;
  for (unsigned place = 0; place < NUMBERS; place++) used += all->numbers[place].used;
  return used;
}

static void change_descriptor(struct descriptors *all, struct random *random) {
  unsigned place = (unsigned)random_below(random, NUMBERS), to = (unsigned)random_below(random, NUMBERS);
  int number = FIRST_NUMBER + (int)place;
  struct open *open = &all->opens[all->numbers[place].open];
  if (!all->numbers[place].used) {
    if (used_numbers(all) < SLOTS) open_one(all, random, place);
    return;
  }
  switch (random_below(random, 9)) {
    case 0: close_one(all, place); break;
    case 1: case 2: if (used_numbers(all) < SLOTS) duplicate(all, place, to, random_below(random, 2)); break;
    case 3: if (place != to) duplicate(all, place, to, random_below(random, 2)), close_one(all, place); break;
    case 4: set_flags(open, number, (random_below(random, 2) ? O_APPEND : 0) | (random_below(random, 2) ? O_NONBLOCK : 0)); break;
    case 5:
      all->numbers[place].close_on_exec = !all->numbers[place].close_on_exec;
      fcntl(number, F_SETFD, all->numbers[place].close_on_exec ? FD_CLOEXEC : 0);
      break;
    case 6: seek(all, random, open, number); break;
    default: write_file(all, random, open, number);
  }
}

static void change_descriptors(void *state, struct random *random) {
  for (int count = 0; count < 8; count++) change_descriptor(state, random);
}

static void check_regular(const struct descriptors *all, const struct open *open, int number) {
  uint8_t bytes[512];
  expect("descriptors", "offset", open->offset, lseek(number, 0, SEEK_CUR));
  struct stat status;
  fstat(number, &status);
  expect("descriptors", "file size", all->sizes[open->file], status.st_size);
  off_t from = open->offset > 256 ? open->offset - 256 : 0;
  ssize_t got = pread(number, bytes, sizeof bytes, from);
  for (ssize_t index = 0; index < got; index++)
    expect("descriptors", "file content", byte_of(open->file, from + index), bytes[index]);
}

static void check_identity(const struct descriptors *all, const struct open *open, int number) {
  struct stat status;
  if (open->what == REGULAR) check_regular(all, open, number);
  else if (open->what == FOLDER) {
    if (fstatat(number, "mark", &status, 0)) refused("reading the folder's mark");
    expect("descriptors", "folder", open->file ? 0600 : 0644, status.st_mode & 0777);
  } else {
    fstat(number, &status);
    expect("descriptors", "device", open->what == DEVICE_NULL ? makedev(1, 3) : makedev(1, 5), (long long)status.st_rdev);
  }
}

static void check_descriptors(void *state) {
  struct descriptors *all = state;
  for (unsigned place = 0; place < NUMBERS; place++) {
    int number = FIRST_NUMBER + (int)place, flags = fcntl(number, F_GETFD);
    expect("descriptors", "is open", all->numbers[place].used, flags >= 0);
    if (flags < 0) continue;
    const struct open *open = &all->opens[all->numbers[place].open];
    expect("descriptors", "close on exec", all->numbers[place].close_on_exec, flags & FD_CLOEXEC);
    expect("descriptors", "flags", open->flags, fcntl(number, F_GETFL) & (O_APPEND | O_NONBLOCK));
    check_identity(all, open, number);
  }
}

static void spoil_descriptors(void *state) {
  struct descriptors *all = state;
  for (unsigned place = 0; place < NUMBERS; place++)
    if (all->numbers[place].used) fcntl(FIRST_NUMBER + (int)place, F_SETFD, all->numbers[place].close_on_exec ? 0 : FD_CLOEXEC);
}

// -- Pipes with content, as a stream and as packets

enum { PIPES = 4, PACKETS = 256 };

struct pipes {
  struct pipe {
    int ends[2];
    bool packets;
    uint64_t written, read;          // Bytes so far; byte n of a pipe is known from n.
    uint16_t lengths[PACKETS];       // Of the packets inside, a ring.
    uint32_t first, last;
    int flags[2], size;
  } pipes[PIPES];
};

static uint8_t pipe_byte(uint64_t place) { return (uint8_t)mix(place); }

static void make_pipe(struct pipe *pipe, struct random *random) {
  *pipe = (struct pipe){.packets = random_below(random, 2)};
  if (pipe2(pipe->ends, O_CLOEXEC | O_NONBLOCK | (pipe->packets ? O_DIRECT : 0)))
    changed("pipes", "making one: %s", strerror(errno));
  for (int end = 0; end < 2; end++) pipe->flags[end] = fcntl(pipe->ends[end], F_GETFL);
  pipe->size = fcntl(pipe->ends[0], F_GETPIPE_SZ);
}

static void write_pipe(struct pipe *pipe, struct random *random) {
  uint8_t bytes[4096];
  size_t length = 1 + random_below(random, random_below(random, 2) ? 64 : sizeof bytes);
  if (pipe->packets && pipe->last - pipe->first == PACKETS) return;
  for (size_t index = 0; index < length; index++) bytes[index] = pipe_byte(pipe->written + index);
  if (!(pipe->flags[1] & O_NONBLOCK)) fcntl(pipe->ends[1], F_SETFL, pipe->flags[1] |= O_NONBLOCK);
  ssize_t count = write(pipe->ends[1], bytes, length);
  if (count < 0 && errno == EAGAIN) return;
  if (count < 0) changed("pipes", "writing: %s", strerror(errno));
  pipe->written += (uint64_t)count;
  if (pipe->packets) pipe->lengths[pipe->last++ % PACKETS] = (uint16_t)count;
}

static void read_pipe(struct pipe *pipe, struct random *random) {
  uint8_t bytes[4096];
  size_t inside = pipe->written - pipe->read, length = pipe->packets ? sizeof bytes : 1 + random_below(random, sizeof bytes);
  if (!inside) return;
  ssize_t count = read(pipe->ends[0], bytes, length);
  size_t wanted = pipe->packets ? pipe->lengths[pipe->first++ % PACKETS] : inside < length ? inside : length;
  expect("pipes", pipe->packets ? "packet" : "bytes read", (long long)wanted, count);
  for (ssize_t index = 0; index < count; index++)
    expect("pipes", "content", pipe_byte(pipe->read + (uint64_t)index), bytes[index]);
  pipe->read += (uint64_t)count;
}

static void change_pipe(struct pipe *pipe, struct random *random) {
  int end = (int)random_below(random, 2);
  switch (random_below(random, 12)) {
    case 0:
      if (fcntl(pipe->ends[0], F_SETPIPE_SZ, PAGE << random_below(random, 6)) > 0)
        pipe->size = fcntl(pipe->ends[0], F_GETPIPE_SZ);
      break;
    case 1: case 2: fcntl(pipe->ends[end], F_SETFL, pipe->flags[end] ^= O_NONBLOCK); break;
    case 3: case 4: case 5: read_pipe(pipe, random); break;
    case 6:
      if (random_below(random, 20)) break;
      close(pipe->ends[0]), close(pipe->ends[1]);
      make_pipe(pipe, random);
      break;
    default: write_pipe(pipe, random);
  }
}

static bool prepare_pipes(void *state, struct random *random) {
  for (int index = 0; index < PIPES; index++) make_pipe(&((struct pipes *)state)->pipes[index], random);
  return true;
}
static void change_pipes(void *state, struct random *random) {
  for (int index = 0; index < PIPES; index++) change_pipe(&((struct pipes *)state)->pipes[index], random);
}
static void check_pipes(void *state) {
  for (int index = 0; index < PIPES; index++) {
    struct pipe *pipe = &((struct pipes *)state)->pipes[index];
    int inside = -1;
    ioctl(pipe->ends[0], FIONREAD, &inside);
    expect("pipes", "bytes inside", (long long)(pipe->written - pipe->read), inside);
    expect("pipes", "size", pipe->size, fcntl(pipe->ends[1], F_GETPIPE_SZ));
    for (int end = 0; end < 2; end++) expect("pipes", "flags", pipe->flags[end], fcntl(pipe->ends[end], F_GETFL));
  }
}
static void spoil_pipes(void *state) {
  struct pipe *pipe = &((struct pipes *)state)->pipes[1];
  fcntl(pipe->ends[0], F_SETFL, pipe->flags[0] ^ O_NONBLOCK);
}

// -- Event descriptors: a counter, or a semaphore

enum { EVENTS = 4 };

struct events {
  int descriptors[EVENTS];
  uint64_t values[EVENTS];
};

static bool prepare_events(void *state, struct random *random) {
  struct events *events = state;
  (void)random;
  for (int index = 0; index < EVENTS; index++)
    if ((events->descriptors[index] = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC | (index % 2 ? EFD_SEMAPHORE : 0))) < 0)
      return false;
  return true;
}
static void change_events(void *state, struct random *random) {
  struct events *events = state;
  for (int index = 0; index < EVENTS; index++) {
    events->values[index] = index % 2 ? random_below(random, 8) : random_next(random) >> 1;
    if (random_below(random, 4) == 0) events->values[index] = 0;
    if (events->values[index]) eventfd_write(events->descriptors[index], events->values[index]);
  }
}
// Only reading tells the value; check leaves the counters at zero.
static void check_events(void *state) {
  struct events *events = state;
  for (int index = 0; index < EVENTS; index++) {
    uint64_t found = 0, one;
    while (!eventfd_read(events->descriptors[index], &one)) {
      if (index % 2) expect("eventfd", "step of a semaphore", 1, (long long)one);
      found += one;
      if (index % 2 == 0) break;
    }
    expect("eventfd", "value", (long long)events->values[index], (long long)found);
  }
}
static void spoil_events(void *state) { eventfd_write(((struct events *)state)->descriptors[1], 1); }

// -- Epoll sets: targets added, changed, deleted; one-shot and nested ones; readiness known beforehand

enum { TARGETS = 6 };

struct polls {
  int outer, inner;
  struct target {
    int descriptor;
    bool ready, added, spent;  // Spent: a one-shot that has fired, an edge that was taken.
    uint32_t events;
    uint64_t data;
  } targets[TARGETS];
  uint64_t inner_data;
  bool edges;  // The kind with edge-triggered targets.
};

static void control_target(int set, int operation, struct target *target) {
  struct epoll_event event = {.events = target->events, .data.u64 = target->data};
  if (epoll_ctl(set, operation, target->descriptor, &event)) changed("epoll", "epoll_ctl %d: %s", operation, strerror(errno));
  target->added = operation != EPOLL_CTL_DEL;
  target->spent = false;
}

static bool prepare_polls(void *state, struct random *random) {
  struct polls *polls = state;
  polls->outer = epoll_create1(EPOLL_CLOEXEC);
  polls->inner = epoll_create1(EPOLL_CLOEXEC);
  for (int index = 0; index < TARGETS; index++)
    if ((polls->targets[index].descriptor = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) < 0) return false;
  polls->inner_data = random_next(random);
  struct epoll_event event = {.events = EPOLLIN, .data.u64 = polls->inner_data};
  return !epoll_ctl(polls->outer, EPOLL_CTL_ADD, polls->inner, &event);
}
static bool prepare_edges(void *state, struct random *random) {
  ((struct polls *)state)->edges = true;
  return prepare_polls(state, random);
}

// Targets of the second half are in the inner set.
static int set_of(const struct polls *polls, int index) { return index < TARGETS / 2 ? polls->outer : polls->inner; }

static void set_ready(struct target *target, bool ready) {
  uint64_t value;
  if (ready && !target->ready) eventfd_write(target->descriptor, 1);
  if (!ready && target->ready) eventfd_read(target->descriptor, &value);
  target->ready = ready;
}

static void change_polls(void *state, struct random *random) {
  struct polls *polls = state;
  for (int index = 0; index < TARGETS; index++) {
    struct target *target = &polls->targets[index];
    bool edge = polls->edges && index < TARGETS / 2;
    if (!edge) set_ready(target, random_below(random, 2));
    if (random_below(random, 2)) continue;
    if (target->added && random_below(random, 3) == 0) {
      control_target(set_of(polls, index), EPOLL_CTL_DEL, target);
      continue;
    }
    target->events = (random_below(random, 4) ? EPOLLIN : 0) | (random_below(random, 3) ? 0 : EPOLLPRI);
    if (!edge && index < TARGETS / 2 && random_below(random, 2)) target->events |= EPOLLONESHOT;
    if (edge) target->events |= EPOLLET;
    target->data = random_next(random);
    control_target(set_of(polls, index), target->added ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, target);
  }
  if (!polls->edges) return;
  // Edge-triggered targets are ready all the time; their edges are taken now and then.
  struct epoll_event taken[TARGETS + 1];
  for (int index = 0; index < TARGETS / 2; index++) set_ready(&polls->targets[index], true);
  if (random_below(random, 2)) return;
  epoll_wait(polls->outer, taken, TARGETS + 1, 0);
  for (int index = 0; index < TARGETS / 2; index++) polls->targets[index].spent = true;
}

static bool is_ready(const struct target *target) { return target->added && target->ready && (target->events & EPOLLIN); }

static bool fires(const struct polls *polls, int index) { return is_ready(&polls->targets[index]) && !polls->targets[index].spent; }

// An edge that was taken may come again after a move, which programs have to stand; it may never get lost.
static bool may_fire(const struct polls *polls, int index) {
  return is_ready(&polls->targets[index]) && polls->targets[index].events & EPOLLET;
}

// The events found must be the first to last targets that fire, and the inner set if it is among them.
static void check_set(struct polls *polls, int set, int first, int last, bool with_inner) {
  const char *kind = polls->edges ? "epoll-edge" : "epoll";
  struct epoll_event found[TARGETS + 2];
  int count = epoll_wait(set, found, TARGETS + 2, 0), wanted = with_inner, firing = 0;
  for (int index = first; index < last; index++) wanted += fires(polls, index);
  for (int at = 0; at < count; at++) {
    bool known = with_inner && found[at].data.u64 == polls->inner_data;
    firing += known;
    for (int index = first; index < last; index++) {
      if (found[at].data.u64 != polls->targets[index].data) continue;
      firing += fires(polls, index);
      known |= fires(polls, index) || may_fire(polls, index);
    }
    if (!known) changed(kind, "data %#llx is of no target that is ready", (unsigned long long)found[at].data.u64);
    expect(kind, "events", EPOLLIN, found[at].events);
  }
  expect(kind, "events that are ready", wanted, firing);
}

static void check_polls(void *state) {
  struct polls *polls = state;
  bool inner = false;
  for (int index = TARGETS / 2; index < TARGETS; index++) inner |= fires(polls, index);
  check_set(polls, polls->outer, 0, TARGETS / 2, inner);
  check_set(polls, polls->inner, TARGETS / 2, TARGETS, false);
  for (int index = 0; index < TARGETS / 2; index++)
    if (fires(polls, index) && polls->targets[index].events & (EPOLLONESHOT | EPOLLET)) polls->targets[index].spent = true;
}

static void spoil_polls(void *state) {
  struct polls *polls = state;
  int extra = eventfd(1, EFD_CLOEXEC);
  struct epoll_event event = {.events = EPOLLIN, .data.u64 = 1};
  epoll_ctl(polls->outer, EPOLL_CTL_ADD, extra, &event);
}

const struct kind file_kinds[] = {
    {.name = "descriptors", .size = sizeof(struct descriptors), .prepare = prepare_descriptors,
     .change = change_descriptors, .check = check_descriptors, .spoil = spoil_descriptors},
    {.name = "pipes", .size = sizeof(struct pipes), .prepare = prepare_pipes, .change = change_pipes,
     .check = check_pipes, .spoil = spoil_pipes},
    {.name = "eventfd", .size = sizeof(struct events), .prepare = prepare_events, .change = change_events,
     .check = check_events, .spoil = spoil_events},
    {.name = "epoll", .size = sizeof(struct polls), .prepare = prepare_polls, .change = change_polls,
     .check = check_polls, .spoil = spoil_polls},
    {.name = "epoll-edge", .size = sizeof(struct polls), .prepare = prepare_edges, .change = change_polls,
     .check = check_polls, .spoil = spoil_polls},
    {0}};
