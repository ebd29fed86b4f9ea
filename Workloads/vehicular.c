// A roadside service: vehicles report where they are, each report is kept, logged, and answered with a warning if
// another vehicle is on a course that comes too near.
//
// Every vehicle has a track, a ring of records. It is full from the start with a past made of a formula, so that the
// state has its size at once and every byte of it can be verified; reports replace the oldest records. A report is
// acknowledged when its record stands in the track and in the log, a file that is only ever appended to.
//
// The warning follows from the tracks alone, in integers, so that a client that knows the reports in their order
// finds the same: Sources/Testbed/Workloads/Vehicular/CollisionRule.swift.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "service.h"
#include "ticks.h"

typedef unsigned long long number;

enum { REPORT = 1, ACKNOWLEDGEMENT, CHECK, CHECKED, LOG, TRACKS, RECORDS };
enum { KEPT = 1, SUPERSEDED };  // An acknowledgement's status. Superseded: a newer one is known already.
enum { NOBODY = UINT32_MAX, MOST_VEHICLES = 10000 };

// Lengths in centimetres, times in nanoseconds of CLOCK_MONOTONIC, speed in cm/s, heading in 1/100 degree.
struct report {
  struct message head;
  uint32_t vehicle, sequence;
  int64_t time;  // Of the client, when it was sent.
  int32_t x, y;
  uint32_t speed, heading;
};

struct acknowledgement {
  struct message head;
  uint32_t vehicle, sequence;
  uint64_t order;   // The place of the report among all that were kept, from 1.
  int64_t served;   // When it was kept.
  uint32_t status;
  uint32_t other;   // The vehicle warned of, or NOBODY.
  uint32_t after;   // Milliseconds until it is nearest.
  uint32_t unused;
};

struct record {
  uint64_t order;
  int64_t time, served;
  uint32_t vehicle, sequence;
  int32_t x, y;
  uint32_t speed, heading, other, after;
  uint64_t check;
};

_Static_assert(sizeof(struct report) == 40 && sizeof(struct acknowledgement) == 48 && sizeof(struct record) == 64,
               "messages have no gaps");

struct track {
  struct record *records;  // The ring.
  uint64_t reports;        // How many were kept; the next goes to reports % slots.
  uint32_t sequence;       // Of the newest.
};

// Ways to be wrong on purpose, once: they show that the client notices.
enum spoil { SPOIL_NONE, SPOIL_LOST, SPOIL_STALE, SPOIL_PAST, SPOIL_LOG, SPOIL_TWICE, SPOIL_WARNING };
static const char *const spoil_names[] = {"none", "lost", "stale", "past", "log", "twice", "warning", NULL};

static struct {
  uint64_t memory, seed, corrupt_after;
  unsigned vehicles;
  uint16_t port;
  bool datagrams;
  const char *log;
  enum spoil spoil;
} options = {.memory = 64 << 20, .seed = 1, .vehicles = 50, .port = 7000, .log = "/reports.log"};

static struct track tracks[MOST_VEHICLES];
static uint64_t slots, kept, superseded;
static int log_file;
static struct ticks *ticks;

// -- Records

static uint64_t record_check(const struct record *record) {
  const uint64_t *words = (const uint64_t *)record;
  uint64_t check = options.seed;
  for (unsigned index = 0; index < sizeof *record / 8 - 1; index++) check = mix(check ^ words[index]);
  return check;
}

// What a slot holds before a report replaces it.
static struct record past(uint32_t vehicle, uint64_t slot) {
  struct record record;
  uint64_t base = mix(options.seed ^ mix((uint64_t)vehicle << 40 ^ slot)), *words = (uint64_t *)&record;
  for (unsigned index = 0; index < sizeof record / 8; index++) words[index] = mix(base + index);
  record.order = 0;  // Not a report.
  return record;
}

static bool slot_is_right(uint32_t vehicle, uint64_t slot) {
  const struct track *track = &tracks[vehicle];
  const struct record *record = &track->records[slot];
  if (slot < track->reports)
    return record->check == record_check(record) && record->order && record->vehicle == vehicle;
  struct record expected = past(vehicle, slot);
  return !memcmp(record, &expected, sizeof expected);
}

// -- Warnings

enum { COURSE_REPORTS = 8, NEAR = 300, HORIZON = 5000, FASTEST = 10000, FARTHEST = 100000000 };

struct course {
  int64_t x, y, vx, vy;
};

static int64_t velocity(int64_t distance, int64_t microseconds) {
  int64_t speed = microseconds > 0 ? distance * 1000000 / microseconds : 0;
  return speed > FASTEST ? FASTEST : speed < -FASTEST ? -FASTEST : speed;
}

// Where a vehicle is and goes, by its last reports.
static struct course course_of(const struct track *track) {
  uint64_t known = track->reports < COURSE_REPORTS ? track->reports : COURSE_REPORTS;
  const struct record *newest = &track->records[(track->reports - 1) % slots];
  const struct record *oldest = &track->records[(track->reports - known) % slots];
  int64_t elapsed = (newest->time - oldest->time) / 1000;
  return (struct course){newest->x, newest->y, velocity((int64_t)newest->x - oldest->x, elapsed),
                         velocity((int64_t)newest->y - oldest->y, elapsed)};
}

// Whom a vehicle will come too near within the horizon: the soonest, among equals the first.
static void warn(uint32_t vehicle, uint32_t *other, uint32_t *after) {
  struct course own = course_of(&tracks[vehicle]);
  *other = NOBODY, *after = 0;
  for (uint32_t index = 0; index < options.vehicles; index++) {
    if (index == vehicle || !tracks[index].reports) continue;
    struct course its = course_of(&tracks[index]);
    int64_t x = its.x - own.x, y = its.y - own.y, vx = its.vx - own.vx, vy = its.vy - own.vy;
    int64_t square = vx * vx + vy * vy, time = square ? -(x * vx + y * vy) * 1000 / square : 0;
    if (time < 0) time = 0;
    if (time > HORIZON) time = HORIZON;
    x += vx * time / 1000, y += vy * time / 1000;
    if (x * x + y * y > (int64_t)NEAR * NEAR || (*other != NOBODY && time >= *after)) continue;
    *other = index, *after = (uint32_t)time;
  }
}

// -- Reports

static bool spoils(enum spoil kind) {
  if (options.spoil != kind || kept != options.corrupt_after) return false;
  options.spoil = SPOIL_NONE;
  return true;
}

static void append_to_log(const struct record *record) {
  if (spoils(SPOIL_LOG)) return;
  int times = spoils(SPOIL_TWICE) ? 2 : 1;
  while (times--)
    if (write(log_file, record, sizeof *record) != sizeof *record) fail("writing to %s", options.log);
}

// Into the track first: the warning follows from it.
static void keep(struct record *record) {
  struct track *track = &tracks[record->vehicle];
  struct record *slot = &track->records[track->reports % slots], before = *slot;
  record->order = ++kept;
  *slot = *record;
  track->reports++;
  track->sequence = record->sequence;
  warn(record->vehicle, &record->other, &record->after);
  if (spoils(SPOIL_WARNING)) record->other = record->other == NOBODY ? 0 : NOBODY;
  record->check = record_check(record);
  *slot = *record;
  append_to_log(record);
  if (spoils(SPOIL_LOST)) *slot = before;
  if (spoils(SPOIL_STALE)) *slot = track->records[(track->reports - 2) % slots];
  if (spoils(SPOIL_PAST)) track->records[slots - 1].x ^= 1;
}

static bool is_near(int32_t place) { return place >= -FARTHEST && place <= FARTHEST; }

static void take_report(const struct report *report, struct peer *peer) {
  if (report->head.length != sizeof *report || report->vehicle >= options.vehicles || !is_near(report->x) ||
      !is_near(report->y))
    return;
  struct acknowledgement reply = {
      .head = {.length = sizeof reply, .kind = ACKNOWLEDGEMENT}, .vehicle = report->vehicle,
      .sequence = report->sequence, .served = (int64_t)now_ns(), .status = SUPERSEDED, .other = NOBODY};
  if (report->sequence > tracks[report->vehicle].sequence) {
    struct record record = {
        .time = report->time, .served = reply.served, .vehicle = report->vehicle, .sequence = report->sequence,
        .x = report->x, .y = report->y, .speed = report->speed, .heading = report->heading};
    keep(&record);
    reply.status = KEPT, reply.order = record.order, reply.other = record.other, reply.after = record.after;
  } else {
    superseded++;
  }
  answer(peer, &reply, sizeof reply);
}

// -- What it is asked at the end

static void send_check(struct peer *peer) {
  static struct line line;
  uint64_t wrong = 0;
  for (uint32_t vehicle = 0; vehicle < options.vehicles; vehicle++)
    for (uint64_t slot = 0; slot < slots; slot++) wrong += !slot_is_right(vehicle, slot);
  line_add(&line, "{\"reports\":%llu,\"superseded\":%llu,\"records\":%llu,\"wrong\":%llu,", (number)kept,
           (number)superseded, (number)(slots * options.vehicles), (number)wrong);
  ticks_describe(ticks, &line);
  line_add(&line, "}");
  answer_text(peer, CHECKED, line.text, line.length);
  line.length = 0;
}

// The log as whoever opens the file by its name finds it.
static void send_log(struct peer *peer) {
  struct stat status;
  int file = open(options.log, O_RDONLY | O_CLOEXEC);
  if (file < 0 || fstat(file, &status)) fail("reading %s", options.log);
  size_t length = (size_t)status.st_size;
  struct message head = {.length = (uint32_t)(sizeof head + length), .kind = RECORDS};
  answer(peer, &head, sizeof head);
  while (length) {
    char bytes[65536];
    ssize_t count = read(file, bytes, length < sizeof bytes ? length : sizeof bytes);
    if (count <= 0) fail("reading %s", options.log);
    answer(peer, bytes, (size_t)count);
    length -= (size_t)count;
  }
  close(file);
}

// Every report that the tracks hold, vehicle after vehicle, oldest first.
static void send_tracks(struct peer *peer) {
  uint64_t records = 0;
  for (uint32_t vehicle = 0; vehicle < options.vehicles; vehicle++)
    records += tracks[vehicle].reports < slots ? tracks[vehicle].reports : slots;
  struct message head = {.length = (uint32_t)(sizeof head + records * sizeof(struct record)), .kind = RECORDS};
  answer(peer, &head, sizeof head);
  for (uint32_t vehicle = 0; vehicle < options.vehicles; vehicle++) {
    const struct track *track = &tracks[vehicle];
    uint64_t newest = track->reports % slots;
    if (track->reports > slots)
      answer(peer, track->records + newest, (slots - newest) * sizeof(struct record));
    answer(peer, track->records, (track->reports > slots ? newest : track->reports) * sizeof(struct record));
  }
}

static void handle(const struct message *message, struct peer *peer) {
  switch (message->kind) {
    case REPORT: take_report((const struct report *)message, peer); break;
    case CHECK: send_check(peer); break;
    case LOG: send_log(peer); break;
    case TRACKS: send_tracks(peer); break;
  }
}

// -- Start

static const char usage[] =
    "usage: vehicular [options]\n"
    "Keeps the tracks of vehicles that report to it, logs the reports and answers with warnings.\n"
    "  --memory BYTES    size of all tracks, K, M or G may follow (64M)\n"
    "  --vehicles N      how many vehicles report, 1-10000 (50)\n"
    "  --port N          where they do, over TCP (7000)\n"
    "  --datagrams       and over UDP\n"
    "  --log FILE        where reports are appended (/reports.log)\n"
    "  --seed N          another seed, another past (1)\n"
    "SIGTERM ends it. Exit status: 0, 2 wrong use.\n";

static void parse_options(int count, char **arguments) {
  enum { MEMORY = 1, VEHICLES, PORT, DATAGRAMS, LOG_FILE, SEED, HELP, CORRUPT_AFTER, CORRUPT_KIND };
  static const struct option table[] = {
      {"memory", 1, 0, MEMORY}, {"vehicles", 1, 0, VEHICLES}, {"port", 1, 0, PORT},
      {"datagrams", 0, 0, DATAGRAMS}, {"log", 1, 0, LOG_FILE}, {"seed", 1, 0, SEED}, {"help", 0, 0, HELP},
      {"corrupt-after", 1, 0, CORRUPT_AFTER}, {"corrupt-kind", 1, 0, CORRUPT_KIND}, {0}};
  for (int choice, index; (choice = getopt_long(count, arguments, "", table, &index)) != -1;) {
    if (choice == '?') _exit(EXIT_WRONG_USE);
    const char *name = table[index].name;
    switch (choice) {
      case MEMORY: options.memory = parse_size(name, optarg); break;
      case VEHICLES: options.vehicles = (unsigned)parse_number(name, optarg, 1, MOST_VEHICLES); break;
      case PORT: options.port = (uint16_t)parse_number(name, optarg, 1, 65535); break;
      case DATAGRAMS: options.datagrams = true; break;
      case LOG_FILE: options.log = optarg; break;
      case SEED: options.seed = parse_number(name, optarg, 0, UINT64_MAX); break;
      case CORRUPT_AFTER: options.corrupt_after = parse_number(name, optarg, 2, UINT64_MAX); break;
      case CORRUPT_KIND: options.spoil = parse_choice(name, optarg, spoil_names); break;
      case HELP: dprintf(STDOUT_FILENO, "%s", usage); _exit(0);
    }
  }
  errno = 0;
  if (optind < count) fail("%s: not an option", arguments[optind]);
  slots = options.memory / options.vehicles / sizeof(struct record);
  if (slots < 2 * COURSE_REPORTS)
    fail("--memory: every vehicle needs %zu bytes", 2 * COURSE_REPORTS * sizeof(struct record));
}

static void fill_tracks(void) {
  struct record *all = map_memory(options.vehicles * slots * sizeof *all, MAP_PRIVATE);
  for (uint32_t vehicle = 0; vehicle < options.vehicles; vehicle++) {
    tracks[vehicle].records = all + vehicle * slots;
    for (uint64_t slot = 0; slot < slots; slot++) tracks[vehicle].records[slot] = past(vehicle, slot);
  }
}

int main(int count, char **arguments) {
  parse_options(count, arguments);
  control_install();
  log_file = open(options.log, O_WRONLY | O_APPEND | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (log_file < 0) fail("--log %s", options.log);
  fill_tracks();
  ticks = ticks_start(NULL, 100 * MICROSECOND);
  service_start(options.port, options.datagrams, handle);
  service_run("vehicular");
}
