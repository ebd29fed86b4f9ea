// A program of any shape: it holds some kinds of state at once, checks each all the time and goes on changing it.
//   shapes SEED FOLDER,FOLDER KIND,KIND,...   says `tick N right` whenever every kind has been checked twice; at the first
//                                             thing that is not as it was left it says `WRONG ...` and ends with status 42
//   shapes kinds                              lists the kinds, and what a migration says of those that are not carried
// SIGUSR1 makes it give up the kinds that are refused; it says `gave up` then.
#define _GNU_SOURCE
#include "shapes.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MOST = 32, EXIT_WRONG = 42, STUCK_TICKS = 600 };

static const struct kind *const tables[] = {file_kinds,   descriptor_kinds, socket_kinds, memory_kinds,
                                            signal_kinds, process_kinds,    refused_kinds};

struct holder {
  const struct kind *kind;
  void *state;
  struct random random;
  uint64_t pace;  // Microseconds between two turns.
  atomic_uint turns;
  atomic_bool ready, gone;
};
static struct holder holders[MOST];
static size_t holder_count;
static atomic_bool giving_up;
static char folders[2][128];
static _Thread_local const char *kind_name = "shapes";

static void say(const char *format, ...) {
  struct line line = {0};
  va_list list;
  va_start(list, format);
  line_add_list(&line, format, list);
  va_end(list);
  line_send(&line);
}

void wrong(const char *format, ...) {
  struct line line = {0};
  line_add(&line, "WRONG %s: ", kind_name);
  va_list list;
  va_start(list, format);
  line_add_list(&line, format, list);
  va_end(list);
  line_send(&line);
  _exit(EXIT_WRONG);
}

void check_bytes(const char *what, const uint8_t *bytes, size_t count, uint64_t stream, uint64_t place) {
  for (size_t index = 0; index < count; index++)
    if (bytes[index] != byte_of(stream, place + index))
      wrong("%s: byte %llu is %02x instead of %02x", what, (unsigned long long)(place + index), bytes[index],
            byte_of(stream, place + index));
}

void rest(uint64_t microseconds) { sleep_until(now_ns() + microseconds * MICROSECOND); }

void make_folder(char path[static 256], const char *name, struct random *random) {
  snprintf(path, 256, "%s/%s", folders[random_below(random, 2)], name);
  MUST(mkdir(path, 0755));
}

static void *__attribute__((noreturn)) keep_turning(void *argument) {
  struct holder *holder = argument;
  const struct kind *kind = holder->kind;
  kind_name = kind->name;
  kind->set_up(holder->state, &holder->random);
  holder->ready = true;
  for (;;) {
    if (giving_up && kind->give_up) {
      kind->give_up(holder->state);
      holder->gone = true;
      for (;;) pause();
    }
    if (kind->turn) kind->turn(holder->state, &holder->random);
    holder->turns++;
    rest(holder->pace / 2 + random_below(&holder->random, holder->pace));
  }
}

static const struct kind *find(const char *name) {
  for (size_t table = 0; table < COUNT(tables); table++)
    for (const struct kind *kind = tables[table]; kind->name; kind++)
      if (!strcmp(kind->name, name)) return kind;
  fail("no kind is called %s", name);
}

static void list_kinds(void) {
  for (size_t table = 0; table < COUNT(tables); table++)
    for (const struct kind *kind = tables[table]; kind->name; kind++)
      printf("%s%s%s\n", kind->name, kind->refused ? "\t" : "", kind->refused ? kind->refused : "");
}

static void start(uint64_t seed, char *names) {
  for (char *rest = names, *name; (name = strsep(&rest, ","));) {
    if (holder_count == MOST) fail("too many kinds");
    struct holder *holder = &holders[holder_count];
    holder->kind = find(name);
    holder->state = map_memory((holder->kind->size / PAGE + 1) * PAGE, MAP_PRIVATE);
    holder->random.state = mix(seed * MOST + holder_count++);
    holder->pace = 200 << random_below(&holder->random, 7);
  }
  for (size_t index = 0; index < holder_count; index++) start_thread(keep_turning, &holders[index], 256 * 1024);
}

static bool all_ready(void) {
  for (size_t index = 0; index < holder_count; index++)
    if (!holders[index].ready) return false;
  return true;
}

static bool all_gave_up(void) {
  for (size_t index = 0; index < holder_count; index++)
    if (holders[index].kind->give_up && !holders[index].gone) return false;
  return true;
}

// Every kind has been checked twice since then.
static bool all_turned(const unsigned *before) {
  for (size_t index = 0; index < holder_count; index++)
    if (!holders[index].gone && holders[index].turns - before[index] < 2) return false;
  return true;
}

static void note_turns(unsigned *turns) {
  for (size_t index = 0; index < holder_count; index++) turns[index] = holders[index].turns;
}

static void name_those_stuck(const unsigned *before) {
  for (size_t index = 0; index < holder_count; index++)
    if (!holders[index].gone && holders[index].turns - before[index] < 2) {
      kind_name = holders[index].kind->name;
      wrong("it is stuck: %u turns in 30 seconds", holders[index].turns - before[index]);
    }
}

int main(int count, char **arguments) {
  if (count == 2 && !strcmp(arguments[1], "kinds")) {
    list_kinds();
    return 0;
  }
  if (count != 4 || sscanf(arguments[2], "%127[^,],%127s", folders[0], folders[1]) != 2)
    fail("usage: shapes SEED FOLDER,FOLDER KIND,KIND,... | shapes kinds");
  sigset_t wanted, all;
  sigfillset(&all);
  sigdelset(&all, SIGTERM);
  sigdelset(&all, SIGINT);
  pthread_sigmask(SIG_BLOCK, &all, NULL);
  sigemptyset(&wanted);
  sigaddset(&wanted, SIGUSR1);
  start(parse_number("seed", arguments[1], 0, UINT64_MAX), arguments[3]);
  while (!all_ready()) rest(1000);
  say("{\"ready\":\"shapes\"}");

  unsigned before[MOST];
  note_turns(before);
  bool gave_up = false;
  for (unsigned long tick = 1, waited = 0;; waited++) {
    struct timespec moment = timespec_of(50 * MILLISECOND);
    if (sigtimedwait(&wanted, NULL, &moment) == SIGUSR1) giving_up = true;
    if (giving_up && !gave_up && all_gave_up()) {
      gave_up = true;
      say("gave up");
    }
    if (waited > STUCK_TICKS) name_those_stuck(before);
    if (!all_turned(before)) continue;
    say("tick %lu right", tick++);
    note_turns(before);
    waited = 0;
  }
}
