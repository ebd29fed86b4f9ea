// A frame service for augmented reality: poses of a device come in, overlays go out, computed from the pose and from a
// map of the world that the poses refine and extend.
//
// The map has two halves. *Cells*, each a page of points, lie side by side in a square that repeats; every pose
// refines an eighth of the points of the nine cells around it. *Key frames* of 32 KiB are appended, one every tenth
// pose; half of their room is used at the start, and when it is full the oldest is replaced. So the state is three
// quarters of `memory` at first, and grows to all of it.
//
// What the oracle detects. A cell's content follows from its number and its generation, a key frame's from its number
// and the digest of all poses before it. A cell is checked completely before it is refined; the overlay is made of the
// cells' words, so that a client that knows the poses in their order finds the same; a cell or key frame of an earlier
// time differs from what the client expects in the final check, which sums up fingerprints of all of them:
// Sources/Testbed/Workloads/AR/WorldMap.swift.
#define _GNU_SOURCE
#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "service.h"
#include "ticks.h"

typedef unsigned long long number;

enum { POSE = 1, OVERLAY, CHECK, CHECKED, POSES, APPLIED };
enum { DONE = 1, SUPERSEDED };  // An overlay's status. Superseded: a newer pose was applied, so there is none.
enum { PART = 1360, MOST_OVERLAY = 1 << 20, POINTS = PAGE / 8 - 4, CELL_MILLIMETRES = 500, AROUND = 9 };
enum { KEY_FRAME = 32768, KEY_WORDS = KEY_FRAME / 8 - 4, KEY_FRAME_EVERY = 10, MOST_POSES = 1 << 24 };

// Millimetres, 1/1000 degree, nanoseconds of CLOCK_MONOTONIC.
struct pose {
  struct message head;
  uint32_t frame, unused;
  int64_t time;
  int32_t x, y, z, yaw, pitch, roll;
};

struct part {
  struct message head;
  uint32_t frame;
  uint16_t part, parts;
  uint64_t applied;  // How many poses were applied, this one included.
  uint64_t digest;   // Of all of them.
  int64_t served;    // When this one was applied.
  uint32_t status, unused;
  uint64_t words[PART / 8];
};

struct cell {
  uint64_t number, generation, applied, check;
  uint64_t points[POINTS];
};

struct key_frame {
  uint64_t number, applied, digest, check;
  uint64_t features[KEY_WORDS];
};

_Static_assert(sizeof(struct pose) == 48 && offsetof(struct part, words) == 48, "messages have no gaps");
_Static_assert(sizeof(struct cell) == PAGE && sizeof(struct key_frame) == KEY_FRAME, "the map is made of pages");

// Ways to be wrong on purpose, once: they show that the client notices.
enum spoil { SPOIL_NONE, SPOIL_OVERLAY, SPOIL_STALE, SPOIL_POINT, SPOIL_KEY_FRAME, SPOIL_LOST };
static const char *const spoil_names[] = {"none", "overlay", "stale", "point", "key-frame", "lost", NULL};

static struct {
  uint64_t memory, overlay, corrupt_after;
  uint16_t port;
  bool datagrams;
  enum spoil spoil;
} options = {.memory = 64 << 20, .overlay = 16 << 10, .port = 7000};

static struct cell *cells;
static struct key_frame *key_frames;
static uint64_t side, slots, keys;  // Cells of the square's side; room for key frames, and how many were ever made.
static uint32_t *poses;             // The frames whose poses were applied, in order.
static uint64_t applied, superseded, digest;
static uint64_t wrong_cells;        // Found wrong when they were to be refined.
static struct ticks *ticks;

// -- The map

static uint64_t fingerprint(uint64_t number, uint64_t state) { return mix(mix(number) ^ state); }

// A point was last refined in the newest generation of its turn, if there was one yet.
static uint64_t point_of(uint64_t number, uint64_t generation, unsigned index) {
  uint64_t since = (generation - index) % 8, refined = generation >= since ? generation - since : 0;
  return mix(mix(number << 20 ^ refined) + index);
}

static uint64_t cell_check(const struct cell *cell) {
  return mix(cell->number ^ mix(cell->generation ^ mix(cell->applied)));
}

static bool cell_is_right(uint64_t number) {
  const struct cell *cell = &cells[number];
  if (cell->number != number || cell->check != cell_check(cell)) return false;
  for (unsigned index = 0; index < POINTS; index++)
    if (cell->points[index] != point_of(number, cell->generation, index)) return false;
  return true;
}

static void refine(struct cell *cell) {
  if (!cell_is_right((uint64_t)(cell - cells))) wrong_cells++;
  cell->generation++;
  cell->applied = applied;
  cell->check = cell_check(cell);
  for (unsigned index = cell->generation % 8; index < POINTS; index += 8)
    cell->points[index] = point_of(cell->number, cell->generation, index);
}

static uint64_t feature_of(const struct key_frame *frame, unsigned index) {
  return mix(mix(frame->number ^ frame->digest) + index);
}

static uint64_t key_check(const struct key_frame *frame) {
  return mix(frame->number ^ mix(frame->applied ^ mix(frame->digest)));
}

static bool key_frame_is_right(uint64_t number) {
  const struct key_frame *frame = &key_frames[number % slots];
  if (frame->number != number || frame->check != key_check(frame)) return false;
  for (unsigned index = 0; index < KEY_WORDS; index++)
    if (frame->features[index] != feature_of(frame, index)) return false;
  return true;
}

static void add_key_frame(void) {
  struct key_frame *frame = &key_frames[keys % slots];
  frame->number = keys++;
  frame->applied = applied;
  frame->digest = digest;
  frame->check = key_check(frame);
  for (unsigned index = 0; index < KEY_WORDS; index++) frame->features[index] = feature_of(frame, index);
}

// -- Poses

static uint64_t pose_digest(const struct pose *pose) {
  const int32_t values[] = {pose->x, pose->y, pose->z, pose->yaw, pose->pitch, pose->roll};
  uint64_t result = mix(digest ^ pose->frame);
  for (unsigned index = 0; index < 6; index++) result = mix(result ^ (uint32_t)values[index]);
  return result;
}

// The place of a cell's column or row in the square, for a length that may be negative.
static uint64_t wrapped(int64_t millimetres, int offset) {
  int64_t cell = (millimetres < 0 ? millimetres - CELL_MILLIMETRES + 1 : millimetres) / CELL_MILLIMETRES + offset;
  int64_t rest = cell % (int64_t)side;
  return (uint64_t)(rest < 0 ? rest + (int64_t)side : rest);
}

static bool spoils(enum spoil kind) {
  if (options.spoil != kind || applied != options.corrupt_after) return false;
  options.spoil = SPOIL_NONE;
  return true;
}

static void spoil_map(struct cell *cell, const struct cell *before) {
  if (spoils(SPOIL_STALE)) *cell = *before;
  if (spoils(SPOIL_POINT)) cells[side * side - 1].points[7] ^= 1;
  if (spoils(SPOIL_KEY_FRAME)) key_frames[0].features[7] ^= 1;
}

static void apply(const struct pose *pose, struct cell *around[AROUND]) {
  if (applied == MOST_POSES) fail("more than %d poses", MOST_POSES);
  digest = pose_digest(pose);
  poses[applied++] = pose->frame;
  for (int index = 0; index < AROUND; index++)
    around[index] = &cells[wrapped(pose->y, index / 3 - 1) * side + wrapped(pose->x, index % 3 - 1)];
  struct cell before = *around[0];
  for (int index = 0; index < AROUND; index++) refine(around[index]);
  if (applied % KEY_FRAME_EVERY == 0) add_key_frame();
  spoil_map(around[0], &before);
}

static void send_overlay(const struct pose *pose, struct cell *around[AROUND], int64_t served, struct peer *peer) {
  static unsigned char bytes[(MOST_OVERLAY / PART + 1) * sizeof(struct part)];
  size_t words = options.overlay / 8, parts = (options.overlay + PART - 1) / PART, length = 0;
  for (size_t number = 0; number < parts; number++) {
    struct part part = {.frame = pose->frame, .part = (uint16_t)number, .parts = (uint16_t)parts, .applied = applied,
                        .digest = digest, .served = served, .status = DONE};
    size_t from = number * (PART / 8), count = words - from < PART / 8 ? words - from : PART / 8;
    for (size_t index = from; index < from + count; index++)
      part.words[index - from] = mix(digest + index) ^ around[index % AROUND]->points[index * 11 % POINTS];
    if (number == 0 && spoils(SPOIL_OVERLAY)) part.words[0] ^= 1;
    size_t size = offsetof(struct part, words) + count * 8;
    part.head = (struct message){.length = (uint32_t)size, .kind = OVERLAY};
    memcpy(bytes + length, &part, size);
    length += size;
  }
  answer(peer, bytes, length);
}

static void take_pose(const struct pose *pose, struct peer *peer) {
  if (pose->head.length != sizeof *pose) return;
  int64_t served = (int64_t)now_ns();
  if (applied && pose->frame <= poses[applied - 1]) {
    struct part part = {.head = {.length = offsetof(struct part, words), .kind = OVERLAY}, .frame = pose->frame,
                        .parts = 1, .applied = applied, .digest = digest, .served = served, .status = SUPERSEDED};
    superseded++;
    answer(peer, &part, part.head.length);
    return;
  }
  struct cell *around[AROUND];
  apply(pose, around);
  send_overlay(pose, around, served, peer);
  if (spoils(SPOIL_LOST)) applied--;
}

// -- What it is asked at the end

static void send_check(struct peer *peer) {
  static struct line line;
  uint64_t wrong = wrong_cells, wrong_keys = 0, map = 0, frames = 0;
  uint64_t oldest = keys > slots ? keys - slots : 0;
  for (uint64_t number = 0; number < side * side; number++) {
    wrong += !cell_is_right(number);
    map += fingerprint(number, cells[number].generation);
  }
  for (uint64_t number = oldest; number < keys; number++) {
    wrong_keys += !key_frame_is_right(number);
    frames += fingerprint(number, key_frames[number % slots].digest);
  }
  line_add(&line, "{\"applied\":%llu,\"superseded\":%llu,\"digest\":%llu,\"side\":%llu,\"cellsWrong\":%llu,"
                  "\"cellDigest\":%llu,\"keyFrames\":%llu,\"keyFrameRoom\":%llu,\"keyFramesWrong\":%llu,"
                  "\"keyFrameDigest\":%llu,",
           (number)applied, (number)superseded, (number)digest, (number)side, (number)wrong, (number)map, (number)keys,
           (number)slots, (number)wrong_keys, (number)frames);
  ticks_describe(ticks, &line);
  line_add(&line, "}");
  answer_text(peer, CHECKED, line.text, line.length);
  line.length = 0;
}

static void handle(const struct message *message, struct peer *peer) {
  switch (message->kind) {
    case POSE: take_pose((const struct pose *)message, peer); break;
    case CHECK: send_check(peer); break;
    case POSES: answer_text(peer, APPLIED, (const char *)poses, applied * sizeof *poses); break;
  }
}

// -- Start

static const char usage[] =
    "usage: ar [options]\n"
    "Answers poses with overlays that it computes from a map of the world.\n"
    "  --memory BYTES    what the map grows to, K, M or G may follow (64M)\n"
    "  --overlay BYTES   size of an overlay, a multiple of 8 (16K)\n"
    "  --port N          where poses come in, over TCP (7000)\n"
    "  --datagrams       and over UDP\n"
    "SIGTERM ends it. Exit status: 0, 2 wrong use.\n";

static void parse_options(int count, char **arguments) {
  enum { MEMORY = 1, OVERLAY_BYTES, PORT, DATAGRAMS, HELP, CORRUPT_AFTER, CORRUPT_KIND };
  static const struct option table[] = {
      {"memory", 1, 0, MEMORY}, {"overlay", 1, 0, OVERLAY_BYTES}, {"port", 1, 0, PORT},
      {"datagrams", 0, 0, DATAGRAMS}, {"help", 0, 0, HELP}, {"corrupt-after", 1, 0, CORRUPT_AFTER},
      {"corrupt-kind", 1, 0, CORRUPT_KIND}, {0}};
  for (int choice, index; (choice = getopt_long(count, arguments, "", table, &index)) != -1;) {
    if (choice == '?') _exit(EXIT_WRONG_USE);
    const char *name = table[index].name;
    switch (choice) {
      case MEMORY: options.memory = parse_size(name, optarg); break;
      case OVERLAY_BYTES: options.overlay = parse_size(name, optarg); break;
      case PORT: options.port = (uint16_t)parse_number(name, optarg, 1, 65535); break;
      case DATAGRAMS: options.datagrams = true; break;
      case CORRUPT_AFTER: options.corrupt_after = parse_number(name, optarg, 1, UINT64_MAX); break;
      case CORRUPT_KIND: options.spoil = parse_choice(name, optarg, spoil_names); break;
      case HELP: dprintf(STDOUT_FILENO, "%s", usage); _exit(0);
    }
  }
  errno = 0;
  if (optind < count) fail("%s: not an option", arguments[optind]);
  if (options.overlay < 8 || options.overlay > MOST_OVERLAY || options.overlay % 8)
    fail("--overlay: want a multiple of 8 from 8 to %d", MOST_OVERLAY);
  if (options.memory < 1 << 20) fail("--memory: want at least 1M");
}

static void fill_map(void) {
  side = (uint64_t)sqrt((double)(options.memory / 2 / PAGE));
  slots = options.memory / 2 / KEY_FRAME;
  cells = map_memory(side * side * PAGE, MAP_PRIVATE);
  key_frames = map_memory(slots * KEY_FRAME, MAP_PRIVATE);
  poses = map_memory(MOST_POSES * sizeof *poses, MAP_PRIVATE | MAP_NORESERVE);
  for (uint64_t number = 0; number < side * side; number++) {
    struct cell *cell = &cells[number];
    cell->number = number;
    cell->check = cell_check(cell);
    for (unsigned index = 0; index < POINTS; index++) cell->points[index] = point_of(number, 0, index);
  }
  while (keys < slots / 2) add_key_frame();
}

int main(int count, char **arguments) {
  parse_options(count, arguments);
  control_install();
  fill_map();
  ticks = ticks_start(NULL, 100 * MICROSECOND);
  service_start(options.port, options.datagrams, handle);
  service_run("ar");
}
