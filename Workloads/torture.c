// Memory torture: threads that change their address space in every way at a high rate and know each byte of it.
//
// Every thread owns a window of the address space and a model of it: for each page slot whether it is mapped, of
// which kind, with which protection, and from which seeds its content derives. The model lies in other memory than
// the pages and is about a hundredth of their size. Areas are checked byte for byte all the time, and all of them for
// a verdict: content, protection (a page that must not be readable or writable is probed by a system call that would
// return EFAULT), and that holes are holes. One thread also owns the heap and moves the break.
//
// Next to its window every thread has a reservation: much address space of which little is ever touched, made to hold
// pages here and there, emptied by whole page tables, and mapped anew. A page that was not written is expected to be
// absent, and only looked at where it is not, so that checking does not populate it.
//
// What an operation destroys is checked before, so that no corruption vanishes unseen.
//
// The kernel merges and splits areas as it likes; the model follows pages, not areas, so it does not depend on that.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "support.h"

typedef unsigned long long number;

enum { MOST_THREADS = 64, OVERLAYS = 3, HISTORY = 4096, SHOWN = 12, HUGE_SLOTS = 512, HEAP_SLOTS = 1024, SPLITS = 8,
       TABLE_SLOTS = 512, RESERVE_TABLES = 24 };
static const size_t RESERVED = (size_t)16 << 30;

enum kind { UNMAPPED, PRIVATE, SHARED, FILE_PRIVATE };

// What a page must hold: the content of `base` (0: zeros, or the file's), and over it the latest short writes.
struct page {
  uint64_t base;
  uint64_t overlay[OVERLAYS];
  uint16_t from[OVERLAYS], to[OVERLAYS];
  uint8_t overlays, kind, protection, huge;
  uint32_t area;    // Pages of one mmap keep its number wherever they go ...
  uint32_t origin;  // ... and their place in it: the page of the file, or the slot they were born in.
};

struct space {
  uint8_t *base;
  struct page *pages;
  unsigned slots, mapped;
};

struct run {
  unsigned slot, count;
};

struct operation {
  const char *name;
  uint64_t index;
  struct space *space;
  unsigned slot, count, to;
};

struct tormentor {
  struct space window, heap, reserve;
  struct random random;
  unsigned budget;     // How many pages it may have mapped.
  uint32_t last_area;
  struct {
    struct run moved;
    unsigned home;
    uint32_t area;
  } splits[SPLITS];    // Tails moved away, to be moved back.
  uint64_t operations, refused, merges;
  uint64_t request_seen;
  _Atomic uint64_t request_done;
  bool spoiled;
  struct operation history[HISTORY];
};

enum spoil { SPOIL_BIT, SPOIL_ZERO, SPOIL_PROTECTION, SPOIL_HOLE };
static const char *const spoil_names[] = {"bit", "zero", "protection", "hole", NULL};

static struct {
  uint64_t memory, rate, seed, run_for, corrupt_after;
  unsigned threads;
  enum spoil spoil;
} options = {.memory = 64 << 20, .rate = 20000, .seed = 1, .threads = 3};

static struct tormentor *tormentors;
static _Thread_local struct tormentor *self;
static _Atomic uint64_t request;
static atomic_bool spoil_wanted;
static int binary_file;
static uint8_t *binary;  // A copy of the own binary, what its private mappings show where nothing was written.
static unsigned binary_pages;
static uint64_t started;

// -- Reports

static void add_totals(struct line *line) {
  uint64_t operations = 0, refused = 0, merges = 0, areas = 0, pages = 0;
  for (unsigned index = 0; index < options.threads; index++) {
    struct tormentor *one = &tormentors[index];
    operations += one->operations, refused += one->refused, merges += one->merges;
    pages += one->window.mapped + one->heap.mapped;
    areas += one->heap.mapped > 0;
    for (unsigned slot = 0; slot < one->window.slots; slot++) {
      struct page *page = &one->window.pages[slot];
      areas += page->kind && (!slot || page[-1].area != page->area);
    }
  }
  line_add(line, "\"areas\":%llu,\"bytes\":%llu,\"operations\":%llu,\"rejoined\":%llu,\"refused\":%llu,\"elapsed_us\":%llu",
           (number)areas, (number)pages * PAGE, (number)operations, (number)merges, (number)refused,
           (number)((now_ns() - started) / MICROSECOND));
}

static bool touches(const struct operation *operation, const struct space *space, unsigned slot) {
  return operation->space == space && ((slot >= operation->slot && slot < operation->slot + operation->count) ||
                                       (slot >= operation->to && slot < operation->to + operation->count));
}

// The latest operations on the slot, newest first.
static void add_history(struct line *line, const struct space *space, unsigned slot) {
  line_add(line, "\"last_operations\":[");
  for (uint64_t shown = 0, index = self->operations; index-- && self->operations - index < HISTORY && shown < SHOWN;) {
    const struct operation *operation = &self->history[index % HISTORY];
    if (!touches(operation, space, slot)) continue;
    line_add(line, "%s\"%llu %s %u+%u", shown++ ? "," : "", (number)operation->index, operation->name,
             operation->slot, operation->count);
    line_add(line, operation->to != operation->slot ? " to %u\"" : "\"", operation->to);
  }
  line_add(line, "]");
}

// Says what is wrong, once, and ends the program.
static void __attribute__((noreturn))
corrupt(const char *reason, const struct space *space, unsigned slot, unsigned offset, uint64_t expected, uint64_t found) {
  static atomic_flag told = ATOMIC_FLAG_INIT;
  static struct line line;
  if (atomic_flag_test_and_set(&told))
    for (;;) sleep_until(now_ns() + SECOND);
  line_add(&line, "{\"oracle\":\"corrupt\",");
  add_totals(&line);
  line_add(&line, ",\"first_bad\":{\"reason\":\"%s\",\"thread\":%d,\"address\":\"%#llx\",\"page\":%u,\"offset\":%u", reason,
           (int)(self - tormentors), (number)(uintptr_t)(space->base + (size_t)slot * PAGE + offset), slot, offset);
  line_add(&line, ",\"expected\":\"%#llx\",\"found\":\"%#llx\",\"area\":%u,", (number)expected, (number)found,
           slot < space->slots ? space->pages[slot].area : 0);
  add_history(&line, space, slot);
  line_add(&line, "}}");
  line_send(&line);
  _exit(EXIT_CORRUPT);
}

// A fault where the model knows of none: memory or protection got lost.
static void report_fault(int signal, siginfo_t *info, void *context) {
  (void)context;
  static const struct space nowhere = {0};
  if (!self) _exit(128 + signal);
  uintptr_t address = (uintptr_t)info->si_addr;
  struct space *spaces[] = {&self->window, &self->heap, &self->reserve};
  for (int index = 0; index < 3; index++) {
    uintptr_t offset = address - (uintptr_t)spaces[index]->base;
    if (spaces[index]->slots && offset < (uintptr_t)spaces[index]->slots * PAGE)
      corrupt(signal == SIGBUS ? "SIGBUS" : "SIGSEGV", spaces[index], (unsigned)(offset / PAGE), offset % PAGE, 0, 0);
  }
  corrupt(signal == SIGBUS ? "SIGBUS" : "SIGSEGV", &nowhere, (unsigned)(address / PAGE), address % PAGE, 0, 0);
}

static void note(const char *name, struct space *space, unsigned slot, unsigned count, unsigned to) {
  self->history[self->operations % HISTORY] =
      (struct operation){name, self->operations, space, slot, count, to};
  self->operations++;
}

// -- Content

static void fill_words(uint64_t *words, uint64_t seed) {
  for (unsigned index = 0; index < PAGE / 8; index++) {
    uint64_t word = (seed + index) * 0x9e3779b97f4a7c15;
    words[index] = word ^ (word >> 29);
  }
}

// The page as it must be.
static void render(const struct page *page, uint64_t *words) {
  uint64_t scratch[PAGE / 8];
  if (page->base) fill_words(words, page->base);
  else if (page->kind == FILE_PRIVATE) memcpy(words, binary + (size_t)page->origin * PAGE, PAGE);
  else memset(words, 0, PAGE);
  for (unsigned index = 0; index < page->overlays; index++) {
    unsigned from = page->from[index], length = page->to[index] - from;
    fill_words(scratch, page->overlay[index]);
    memcpy((uint8_t *)words + from, (uint8_t *)scratch + from, length);
  }
}

static void forget_content(struct page *page) { page->base = 0, page->overlays = 0; }

// -- Space

static uint8_t *address(const struct space *space, unsigned slot) { return space->base + (size_t)slot * PAGE; }

static unsigned pick(unsigned limit) { return (unsigned)random_below(&self->random, limit); }

// Whether the next slot continues this one, so that both surely lie in one area of the kernel.
static bool continues(const struct page *page) {
  return page[1].kind == page->kind && page[1].area == page->area && page[1].origin == page->origin + 1 &&
         page[1].protection == page->protection && page[1].huge == page->huge;
}

// A run of alike mapped pages at a random place; of none if nothing is mapped.
static struct run pick_run(const struct space *space, unsigned longest) {
  unsigned slot = pick(space->slots);
  for (unsigned tried = 0; !space->pages[slot].kind; slot = (slot + 1) % space->slots)
    if (++tried > space->slots) return (struct run){0, 0};
  struct run run = {slot, 1};
  while (run.count < longest && slot + run.count < space->slots && continues(&space->pages[slot + run.count - 1]))
    run.count++;
  return run;
}

// The run's end, up to the longest, of the alike pages around: what a tail operation needs.
static struct run pick_tail(const struct space *space, unsigned longest) {
  struct run run = pick_run(space, space->slots);
  if (run.count > longest) run.slot += run.count - longest, run.count = longest;
  return run;
}

static bool is_free(const struct space *space, unsigned slot, unsigned count) {
  if (slot + count > space->slots) return false;
  for (unsigned index = 0; index < count; index++)
    if (space->pages[slot + index].kind) return false;
  return true;
}

static bool has_budget(const struct space *space, unsigned count) { return space->mapped + count <= self->budget; }

static void model_map(struct space *space, unsigned slot, unsigned count, struct page page) {
  for (unsigned index = 0; index < count; index++, page.origin++) space->pages[slot + index] = page;
  space->mapped += count;
}

static void model_unmap(struct space *space, unsigned slot, unsigned count) {
  memset(&space->pages[slot], 0, count * sizeof *space->pages);
  space->mapped -= count;
}

static bool is_mapped(const struct space *space, unsigned slot) {
  unsigned char resident;
  return !mincore(address(space, slot), PAGE, &resident);
}

// -- Checks

static void set_protection(const struct space *space, unsigned slot, unsigned count, int protection) {
  if (mprotect(address(space, slot), (size_t)count * PAGE, protection))
    corrupt("mprotect refused", space, slot, 0, 0, (uint64_t)errno);
}

static bool is_readable(const uint8_t *at) { return syscall(SYS_faccessat, AT_FDCWD, at, F_OK) == 0 || errno != EFAULT; }

static bool is_writable(uint8_t *at) { return syscall(SYS_clock_gettime, CLOCK_MONOTONIC, at) == 0; }

static void check_content(const struct space *space, unsigned slot) {
  uint64_t expected[PAGE / 8];
  const uint64_t *found = (const uint64_t *)(void *)address(space, slot);
  render(&space->pages[slot], expected);
  if (!memcmp(expected, found, PAGE)) return;
  for (unsigned word = 0; word < PAGE / 8; word++)
    if (expected[word] != found[word]) corrupt("content", space, slot, word * 8, expected[word], found[word]);
}

// Pages of one protection. What must not be readable is made so for the check, and back.
static void check_run(const struct space *space, struct run run) {
  uint8_t protection = run.count ? space->pages[run.slot].protection : PROT_READ | PROT_WRITE;
  for (unsigned slot = run.slot; slot < run.slot + run.count; slot++) {
    if (!(protection & PROT_WRITE) && is_writable(address(space, slot)))
      corrupt("writable", space, slot, 0, protection, PROT_WRITE);
    if (!(protection & PROT_READ) && is_readable(address(space, slot)))
      corrupt("readable", space, slot, 0, protection, PROT_READ);
  }
  if (!(protection & PROT_READ)) set_protection(space, run.slot, run.count, PROT_READ);
  for (unsigned slot = run.slot; slot < run.slot + run.count; slot++) check_content(space, slot);
  if (!(protection & PROT_READ)) set_protection(space, run.slot, run.count, protection);
}

static void check_hole(const struct space *space, unsigned slot) {
  if (is_mapped(space, slot)) corrupt("hole is mapped", space, slot, 0, 0, 1);
}

static void check_holes(const struct space *space, unsigned slot, unsigned count) {
  for (unsigned index = 0; index < count; index++) check_hole(space, slot + index);
}

// A free run: half of the time right behind a mapped page, where the kernel may merge. The slots' count if none.
// That it is a hole in truth is checked: a move would replace silently what should not be there.
static unsigned pick_free(const struct space *space, unsigned count, unsigned alignment) {
  unsigned start = pick(space->slots) / alignment * alignment;
  if (alignment == 1 && pick(2))
    while (start + 1 < space->slots && !(space->pages[start].kind && !space->pages[start + 1].kind)) start++;
  for (unsigned tried = 0; tried < space->slots; tried += alignment) {
    unsigned slot = (start + tried + (alignment == 1)) % space->slots / alignment * alignment;
    if (is_free(space, slot, count)) return check_holes(space, slot, count), slot;
  }
  return space->slots;
}

static void check_break(void) {
  uintptr_t expected = (uintptr_t)address(&self->heap, self->heap.mapped), found = (uintptr_t)syscall(SYS_brk, 0);
  if (self->heap.slots && found != expected) corrupt("break", &self->heap, self->heap.mapped, 0, expected, found);
}

static void check_space(const struct space *space) {
  for (unsigned slot = 0; slot < space->slots; slot++)
    if (space->pages[slot].kind) check_run(space, (struct run){slot, 1});
    else if (space == &self->window) check_hole(space, slot);
}

// -- Operations. Each makes one random change to the space and its model alike, or none if none is possible.

static struct page new_page(enum kind kind, unsigned origin) {
  return (struct page){.kind = kind, .protection = PROT_READ | PROT_WRITE, .area = ++self->last_area, .origin = origin};
}

static bool map_at(struct space *space, unsigned slot, unsigned count, enum kind kind, unsigned origin) {
  int flags = (kind == SHARED ? MAP_SHARED : MAP_PRIVATE) | (kind == FILE_PRIVATE ? 0 : MAP_ANONYMOUS);
  void *memory = mmap(address(space, slot), (size_t)count * PAGE, PROT_READ | PROT_WRITE, flags | MAP_FIXED_NOREPLACE,
                      kind == FILE_PRIVATE ? binary_file : -1, kind == FILE_PRIVATE ? (off_t)origin * PAGE : 0);
  if (memory == MAP_FAILED && errno == EEXIST) corrupt("hole is taken", space, slot, 0, 0, 1);
  if (memory == MAP_FAILED) return self->refused++, false;
  model_map(space, slot, count, new_page(kind, origin));
  return true;
}

static void unmap(struct space *space) {
  struct run run = pick_run(space, 1 + pick(48));
  if (!run.count) return;
  check_run(space, run);
  note("munmap", space, run.slot, run.count, run.slot);
  if (munmap(address(space, run.slot), (size_t)run.count * PAGE)) self->refused++;
  else model_unmap(space, run.slot, run.count);
}

static void map_some(struct space *space, enum kind kind, unsigned most, const char *name) {
  unsigned count = 1 + pick(most), slot = pick_free(space, count, 1), origin = slot;
  if (!has_budget(space, count) || slot == space->slots) {
    unmap(space);
    return;
  }
  if (kind == SHARED) origin = 0;
  if (kind == FILE_PRIVATE) origin = pick(binary_pages - count + 1);
  note(name, space, slot, count, slot);
  map_at(space, slot, count, kind, origin);
}

static void map_private(struct space *space) { map_some(space, PRIVATE, 32, "mmap private"); }
static void map_shared(struct space *space) { map_some(space, SHARED, 8, "mmap shared"); }
static void map_file(struct space *space) { map_some(space, FILE_PRIVATE, 8, "mmap file"); }

static void write_whole(struct space *space, unsigned slot) {
  struct page *page = &space->pages[slot];
  forget_content(page);
  page->base = random_next(&self->random) | 1;
  fill_words((uint64_t *)(void *)address(space, slot), page->base);
}

static void write_part(struct space *space, unsigned slot) {
  struct page *page = &space->pages[slot];
  uint64_t scratch[PAGE / 8];
  unsigned from = pick(PAGE), length = 1 + pick(pick(2) ? 16 : PAGE - from);
  if (page->overlays == OVERLAYS) {
    write_whole(space, slot);
    return;
  }
  if (length > PAGE - from) length = PAGE - from;
  page->from[page->overlays] = (uint16_t)from;
  page->to[page->overlays] = (uint16_t)(from + length);
  page->overlay[page->overlays] = random_next(&self->random) | 1;
  fill_words(scratch, page->overlay[page->overlays++]);
  memcpy(address(space, slot) + from, (uint8_t *)scratch + from, length);
}

static void write_some(struct space *space) {
  struct run run = pick_run(space, 1 + pick(8));
  bool whole = pick(3) == 0;
  if (!run.count || !(space->pages[run.slot].protection & PROT_WRITE)) return;
  if (whole) check_run(space, run);
  note(whole ? "write whole" : "write part", space, run.slot, run.count, run.slot);
  for (unsigned index = 0; index < run.count; index++)
    if (whole) write_whole(space, run.slot + index);
    else write_part(space, run.slot + index);
}

// A huge page's worth, aligned, all written; what follows drops, protects and moves parts of it.
static void map_huge(struct space *space) {
  unsigned slot = pick_free(space, HUGE_SLOTS, HUGE_SLOTS);
  if (pick(16) || slot == space->slots || space->mapped + HUGE_SLOTS > self->budget / 2) {
    map_private(space);
    return;
  }
  note("mmap huge", space, slot, HUGE_SLOTS, slot);
  if (!map_at(space, slot, HUGE_SLOTS, PRIVATE, slot)) return;
  bool huge = !madvise(address(space, slot), HUGE_SLOTS * PAGE, MADV_HUGEPAGE);
  for (unsigned index = 0; index < HUGE_SLOTS; index++) {
    space->pages[slot + index].huge = huge;
    write_whole(space, slot + index);
  }
}

static void advise_huge(struct space *space) {
  struct run run = pick_run(space, 1 + pick(32));
  bool huge = pick(2);
  if (!run.count || space->pages[run.slot].kind != PRIVATE) return;
  note(huge ? "madvise hugepage" : "madvise nohugepage", space, run.slot, run.count, run.slot);
  if (madvise(address(space, run.slot), (size_t)run.count * PAGE, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE)) {
    self->refused++;
    return;
  }
  for (unsigned index = 0; index < run.count; index++) space->pages[run.slot + index].huge = huge ? 1 : 2;
}

static void drop(struct space *space) {
  struct run run = pick_run(space, 1 + pick(pick(8) ? 16 : 300));
  if (!run.count) return;
  check_run(space, run);
  note("madvise dontneed", space, run.slot, run.count, run.slot);
  if (madvise(address(space, run.slot), (size_t)run.count * PAGE, MADV_DONTNEED)) {
    self->refused++;
    return;
  }
  for (unsigned index = 0; index < run.count; index++)
    if (space->pages[run.slot + index].kind != SHARED) forget_content(&space->pages[run.slot + index]);
}

static void protect(struct space *space) {
  static const uint8_t protections[] = {PROT_NONE, PROT_READ, PROT_READ | PROT_WRITE, PROT_READ | PROT_WRITE};
  struct run run = pick_run(space, 1 + pick(24));
  uint8_t protection = protections[pick(4)];
  if (!run.count) return;
  note(protection == 0 ? "protect none" : protection == PROT_READ ? "protect read" : "protect write", space, run.slot,
       run.count, run.slot);
  set_protection(space, run.slot, run.count, protection);
  for (unsigned index = 0; index < run.count; index++) space->pages[run.slot + index].protection = protection;
}

static void read_zero(struct space *space) {
  struct run run = pick_run(space, 1 + pick(16));
  const struct page *page = &space->pages[run.slot];
  if (!run.count || page->kind != PRIVATE || !(page->protection & PROT_READ)) return;
  note("read", space, run.slot, run.count, run.slot);
  for (unsigned index = 0; index < run.count; index++, page++) {
    uint8_t found = *(volatile uint8_t *)address(space, run.slot + index);
    if (!page->base && !page->overlays && found) corrupt("not zero", space, run.slot + index, 0, 0, found);
  }
}

// Moves the model of one page; the source slot becomes a hole, or an empty page if it is kept.
static void model_move(struct space *space, unsigned from, unsigned to, bool keep) {
  struct page page = space->pages[from];
  model_map(space, to, 1, page);
  space->pages[to].origin = page.origin;
  if (keep) forget_content(&space->pages[from]);
  else model_unmap(space, from, 1);
}

// A refused move may have moved a part, if the kernel's areas were others than thought; the kernel is asked.
static bool move(struct space *space, struct run run, unsigned to, bool keep) {
  int flags = MREMAP_MAYMOVE | MREMAP_FIXED | (keep ? MREMAP_DONTUNMAP : 0);
  size_t length = (size_t)run.count * PAGE;
  bool done = mremap(address(space, run.slot), length, length, flags, address(space, to)) != MAP_FAILED;
  self->refused += !done;
  for (unsigned index = 0; index < run.count; index++)
    if (done || is_mapped(space, to + index)) model_move(space, run.slot + index, to + index, keep);
  return done;
}

static void move_some(struct space *space) {
  struct run run = pick_run(space, 1 + pick(32));
  unsigned to = run.count ? pick_free(space, run.count, 1) : space->slots;
  if (to == space->slots) return;
  note("mremap move", space, run.slot, run.count, to);
  move(space, run, to, false);
}

static void move_and_keep(struct space *space) {
  struct run run = pick_run(space, 1 + pick(16));
  unsigned to = run.count ? pick_free(space, run.count, 1) : space->slots;
  if (to == space->slots || space->pages[run.slot].kind != PRIVATE || !has_budget(space, run.count)) return;
  note("mremap dontunmap", space, run.slot, run.count, to);
  move(space, run, to, true);
}

// Moves a tail away and remembers it, so that rejoin can make one area of the two again.
static void split(struct space *space) {
  struct run run = pick_tail(space, 1 + pick(16));
  unsigned to = run.count ? pick_free(space, run.count, 1) : space->slots, place = pick(SPLITS);
  if (to == space->slots) return;
  uint32_t area = space->pages[run.slot].area;
  note("mremap split", space, run.slot, run.count, to);
  if (!move(space, run, to, false)) return;
  self->splits[place].moved = (struct run){to, run.count};
  self->splits[place].home = run.slot;
  self->splits[place].area = area;
}

static void rejoin(struct space *space) {
  unsigned place = pick(SPLITS), home = self->splits[place].home;
  struct run run = self->splits[place].moved;
  if (!run.count || !is_free(space, home, run.count)) return;
  self->splits[place].moved.count = 0;
  check_holes(space, home, run.count);
  for (unsigned index = 0; index < run.count; index++) {
    const struct page *page = &space->pages[run.slot + index];
    if (!page->kind || page->area != self->splits[place].area) return;
    if (index + 1 < run.count && !continues(page)) return;
  }
  note("mremap rejoin", space, run.slot, run.count, home);
  self->merges += move(space, run, home, false);
}

// Grows where the next slots are free, or by moving.
static void grow(struct space *space) {
  struct run run = pick_tail(space, 1 + pick(16));
  unsigned more = 1 + pick(8), end = run.slot + run.count;
  if (!run.count || space->pages[run.slot].kind != PRIVATE || !has_budget(space, more)) return;
  if (end < space->slots && space->pages[end].kind && continues(&space->pages[end - 1])) return;
  struct page page = space->pages[end - 1];
  forget_content(&page);
  page.origin++;
  bool stay = is_free(space, end, more);
  unsigned to = stay ? run.slot : pick_free(space, run.count + more, 1);
  if (to == space->slots) return;
  if (stay) check_holes(space, end, more);
  note(stay ? "mremap grow" : "mremap grow and move", space, run.slot, run.count + more, to);
  if (mremap(address(space, run.slot), (size_t)run.count * PAGE, (size_t)(run.count + more) * PAGE,
             stay ? 0 : MREMAP_MAYMOVE | MREMAP_FIXED, address(space, to)) == MAP_FAILED) {
    self->refused++;
    return;
  }
  for (unsigned index = 0; !stay && index < run.count; index++) model_move(space, run.slot + index, to + index, false);
  model_map(space, to + run.count, more, page);
}

static void shrink(struct space *space) {
  struct run run = pick_tail(space, 2 + pick(16));
  if (run.count < 2) return;
  unsigned left = 1 + pick(run.count - 1);
  check_run(space, run);
  note("mremap shrink", space, run.slot, run.count, run.slot);
  if (mremap(address(space, run.slot), (size_t)run.count * PAGE, (size_t)left * PAGE, 0) == MAP_FAILED) self->refused++;
  else model_unmap(space, run.slot + left, run.count - left);
}

static void check_some(struct space *space) {
  struct run run = pick_run(space, 64);
  check_run(space, run);
  unsigned slot = pick(space->slots);
  if (!space->pages[slot].kind && space == &self->window) check_hole(space, slot);
}

static void move_break(struct space *heap) {
  unsigned target = pick(heap->slots), before = heap->mapped;
  if (before > heap->slots / 2) target = pick(before);
  if (target > before + 32) target = before + 32;
  check_break();
  for (unsigned slot = target; slot < before; slot++) check_run(heap, (struct run){slot, 1});
  note(target > before ? "brk grow" : "brk shrink", heap, target < before ? target : before,
       target < before ? before - target : target - before, target);
  if ((uint8_t *)syscall(SYS_brk, address(heap, target)) != address(heap, target))
    corrupt("brk refused", heap, before, 0, target, before);
  if (target < before) model_unmap(heap, target, before - target);
  else model_map(heap, before, target - before, new_page(PRIVATE, before));
}

static void torment_heap(struct space *heap) {
  switch (pick(6)) {
    case 0: move_break(heap); break;
    case 1: drop(heap); break;
    case 2: check_some(heap); break;
    default: write_some(heap);
  }
}

// -- The reservation

static bool is_untouched(const struct page *page) { return !page->base && !page->overlays; }

// Checks what was written and whatever else is there; a page that is absent is zero by itself.
static void check_reserve(const struct space *space, struct run run) {
  unsigned char there[TABLE_SLOTS];
  for (unsigned slot = run.slot, part; slot < run.slot + run.count; slot += part) {
    part = run.slot + run.count - slot < TABLE_SLOTS ? run.slot + run.count - slot : TABLE_SLOTS;
    if (mincore(address(space, slot), (size_t)part * PAGE, there)) corrupt("reservation lost", space, slot, 0, 1, 0);
    for (unsigned index = 0; index < part; index++)
      if ((there[index] & 1) || !is_untouched(&space->pages[slot + index])) check_run(space, (struct run){slot + index, 1});
  }
}

// Maps whatever is a hole among some slots.
static void reserve_holes(struct space *space, struct run run, enum kind kind, int protection, bool huge) {
  for (unsigned slot = run.slot, end = run.slot + run.count, count; slot < end; slot += count) {
    count = 1;
    if (space->pages[slot].kind) continue;
    while (slot + count < end && !space->pages[slot + count].kind) count++;
    int flags = (kind == SHARED ? MAP_SHARED : MAP_PRIVATE) | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE;
    if (mmap(address(space, slot), (size_t)count * PAGE, protection, flags, -1, 0) == MAP_FAILED)
      corrupt("hole is taken", space, slot, 0, 0, 1);
    struct page page = new_page(kind, kind == SHARED ? 0 : slot);
    page.protection = (uint8_t)protection;
    page.huge = huge && !madvise(address(space, slot), (size_t)count * PAGE, MADV_HUGEPAGE);
    model_map(space, slot, count, page);
  }
}

static struct run pick_tables(void) {
  unsigned first = pick(RESERVE_TABLES), count = 1 + pick(3);
  if (first + count > RESERVE_TABLES) count = RESERVE_TABLES - first;
  return (struct run){first * TABLE_SLOTS, count * TABLE_SLOTS};
}

static void settle(struct space *space) {
  struct run run = {pick(space->slots - 8), 1 + pick(8)};
  note("settle", space, run.slot, run.count, run.slot);
  check_reserve(space, run);
  set_protection(space, run.slot, run.count, PROT_READ | PROT_WRITE);
  for (unsigned slot = run.slot; slot < run.slot + run.count; slot++) {
    space->pages[slot].protection = PROT_READ | PROT_WRITE;
    write_whole(space, slot);
  }
}

static void clear_out(struct space *space) {
  struct run run = pick_tables();
  note("clear out", space, run.slot, run.count, run.slot);
  check_reserve(space, run);
  if (madvise(address(space, run.slot), (size_t)run.count * PAGE, MADV_DONTNEED)) {
    self->refused++;
    return;
  }
  for (unsigned slot = run.slot; slot < run.slot + run.count; slot++)
    if (space->pages[slot].kind != SHARED) forget_content(&space->pages[slot]);
}

static void reserve_anew(struct space *space) {
  struct run run = pick_tables();
  note("reserve anew", space, run.slot, run.count, run.slot);
  check_reserve(space, run);
  if (munmap(address(space, run.slot), (size_t)run.count * PAGE)) corrupt("munmap refused", space, run.slot, 0, 0, 0);
  model_unmap(space, run.slot, run.count);
  enum kind kind = pick(4) ? PRIVATE : SHARED;
  int protection = kind == SHARED || pick(2) ? PROT_READ | PROT_WRITE : PROT_NONE;
  reserve_holes(space, run, kind, protection, kind == PRIVATE && !pick(4));
}

// Alike pages, a page table's worth at most, to where others were.
static void resettle(struct space *space) {
  struct run run = pick_run(space, TABLE_SLOTS), from = run;
  unsigned to = pick(space->slots - run.count);
  if (to < run.slot + run.count && run.slot < to + run.count) return;
  note("resettle", space, run.slot, run.count, to);
  run.slot = to;
  check_reserve(space, run);
  if (munmap(address(space, to), (size_t)run.count * PAGE)) corrupt("munmap refused", space, to, 0, 0, 0);
  model_unmap(space, to, run.count);
  move(space, from, to, false);
  reserve_holes(space, run, PRIVATE, PROT_NONE, false);
  reserve_holes(space, from, PRIVATE, PROT_READ | PROT_WRITE, false);
}

static void torment_reserve(struct space *space) {
  switch (pick(8)) {
    case 0: clear_out(space); break;
    case 1: reserve_anew(space); break;
    case 2: resettle(space); break;
    case 3: protect(space); break;
    default: settle(space);
  }
}

static void torment(struct space *window) {
  static void (*const operations[])(struct space *) = {
      write_some, write_some, write_some, write_some, write_some, write_some, map_private, map_private, map_huge,
      map_shared, map_file, unmap, drop, drop, protect, protect, advise_huge, read_zero, move_some, move_and_keep,
      split, split, rejoin, rejoin, rejoin, rejoin, grow, shrink, check_some, check_some};
  operations[pick(sizeof operations / sizeof *operations)](window);
}

// -- Spoiling on purpose

static struct run pick_writable(const struct space *space) {
  struct run run;
  do run = pick_run(space, 1);
  while (!(space->pages[run.slot].protection & PROT_WRITE));
  return run;
}

static void spoil(struct space *space) {
  uint8_t *at;
  unsigned slot;
  switch (options.spoil) {
    case SPOIL_BIT: address(space, pick_writable(space).slot)[pick(PAGE)] ^= 4; break;
    case SPOIL_ZERO:
      while (!space->pages[slot = pick_writable(space).slot].base) {
      }
      memset(address(space, slot), 0, PAGE);
      break;
    case SPOIL_PROTECTION:
      set_protection(space, slot = pick_writable(space).slot, 1, PROT_READ | PROT_WRITE);
      set_protection(space, slot, 1, PROT_READ);
      break;
    case SPOIL_HOLE:
      at = address(space, pick_free(space, 1, 1));
      if (mmap(at, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED) fail("spoiling");
  }
}

// -- A thread's life

static struct space new_space(uint8_t *base, unsigned slots) {
  // One page more than slots: looking at the next page is always allowed.
  struct page *pages = map_memory((slots + 1) * sizeof *pages, MAP_PRIVATE);
  return (struct space){.base = base, .pages = pages, .slots = slots};
}

static uint8_t *heap_base(void) {
  uintptr_t end = (uintptr_t)syscall(SYS_brk, 0), base = (end + PAGE - 1) / PAGE * PAGE;
  if ((uintptr_t)syscall(SYS_brk, base) != base) fail("moving the break");
  return (uint8_t *)base;
}

static void check_all(void) {
  check_space(&self->window);
  check_space(&self->heap);
  check_reserve(&self->reserve, (struct run){0, self->reserve.slots});
  check_break();
}

static void attend(void) {
  uint64_t wanted = atomic_load_explicit(&request, memory_order_acquire);
  if (self == tormentors && spoil_wanted && !self->spoiled) self->spoiled = true, spoil(&self->window);
  if (wanted == self->request_seen) return;
  check_all();
  self->request_seen = wanted;
  atomic_store_explicit(&self->request_done, wanted, memory_order_release);
}

static void step(void) {
  attend();
  if (self->heap.slots && pick(8) == 0) torment_heap(&self->heap);
  else if (pick(16) == 0) torment_reserve(&self->reserve);
  else torment(&self->window);
}

static void *__attribute__((noreturn)) work(void *argument) {
  self = argument;
  // The first thread starts last, when nothing uses malloc any more: from here on the break is its own.
  if (self == tormentors) self->heap = new_space(heap_base(), HEAP_SLOTS);
  prctl(PR_SET_TIMERSLACK, 1);
  while (!options.rate) step();
  double rate = (double)options.rate / options.threads, batch = rate > 1000 ? rate / 1000 : 1, due = 0;
  for (uint64_t next = now_ns();; next += (uint64_t)(batch / rate * (double)SECOND)) {
    sleep_until(next);
    if (now_ns() > next + 100 * MILLISECOND) next = now_ns();
    for (due += batch; due >= 1; due--) step();
    attend();
  }
}

// -- The main thread

static void report(const char *verdict, bool final) {
  static struct line line;
  line_add(&line, "{\"oracle\":\"%s\",", verdict);
  add_totals(&line);
  line_add(&line, ",\"first_bad\":null,\"verdicts\":%llu,\"final\":%s}", (number)request, final ? "true" : "false");
  line_send(&line);
}

static void __attribute__((noreturn)) finish(const char *verdict) {
  report(verdict, true);
  _exit(0);
}

// Corruption never returns from here: the thread that finds it reports and ends the program.
static void ask_for_verdict(void) {
  uint64_t wanted = atomic_fetch_add(&request, 1) + 1, patience = now_ns() + 120 * SECOND;
  for (unsigned index = 0; index < options.threads;) {
    if (tormentors[index].request_done == wanted) {
      index++;
      continue;
    }
    control_wait(MILLISECOND);
    if (control_stop) finish("unchecked");
    if (now_ns() < patience) continue;
    self = &tormentors[index];
    corrupt("silent thread", &self->window, 0, 0, wanted, tormentors[index].request_done);
  }
}

static void __attribute__((noreturn)) serve(void) {
  for (;;) {
    control_wait(20 * MILLISECOND);
    uint64_t elapsed = now_ns() - started;
    if (control_stop) finish("unchecked");
    if (options.corrupt_after && elapsed > options.corrupt_after * MILLISECOND) spoil_wanted = true;
    if (atomic_exchange(&control_verdict, false)) ask_for_verdict(), report("ok", false);
    if (options.run_for && elapsed > options.run_for * SECOND) ask_for_verdict(), finish("ok");
  }
}

// -- Start

static const char usage[] =
    "usage: torture [options]\n"
    "Changes its address space at random from several threads and verifies every byte of it.\n"
    "  --memory BYTES             most that is mapped at a time, K, M or G may follow (64M)\n"
    "  --threads N                threads, each with its own window of the address space (3)\n"
    "  --operations-per-second N  tried by all threads, 0 for as many as can be (20000)\n"
    "  --seed N                   another seed, another run; one thread with one seed does the same each time (1)\n"
    "  --run-for SECONDS          verify and end after this time, 0 for never (0)\n"
    "SIGUSR1 asks for a verdict (one line of JSON), SIGTERM ends.\n"
    "Exit status: 0, 2 wrong use, 3 corruption found.\n";

static void parse_options(int count, char **arguments) {
  enum { MEMORY = 1, THREADS, RATE, SEED, RUN_FOR, HELP, CORRUPT_AFTER, CORRUPT_KIND };
  static const struct option table[] = {{"memory", 1, 0, MEMORY}, {"threads", 1, 0, THREADS},
      {"operations-per-second", 1, 0, RATE}, {"seed", 1, 0, SEED}, {"run-for", 1, 0, RUN_FOR}, {"help", 0, 0, HELP},
      {"corrupt-after", 1, 0, CORRUPT_AFTER}, {"corrupt-kind", 1, 0, CORRUPT_KIND}, {0}};
  for (int choice, index; (choice = getopt_long(count, arguments, "", table, &index)) != -1;) {
    if (choice == '?') _exit(EXIT_WRONG_USE);
    const char *name = table[index].name;
    switch (choice) {
      case MEMORY: options.memory = parse_size(name, optarg); break;
      case THREADS: options.threads = (unsigned)parse_number(name, optarg, 1, MOST_THREADS); break;
      case RATE: options.rate = parse_number(name, optarg, 0, 1000000000); break;
      case SEED: options.seed = parse_number(name, optarg, 0, UINT64_MAX); break;
      case RUN_FOR: options.run_for = parse_number(name, optarg, 0, 1000000000); break;
      case CORRUPT_AFTER: options.corrupt_after = parse_number(name, optarg, 1, 1000000000); break;
      case CORRUPT_KIND: options.spoil = parse_choice(name, optarg, spoil_names); break;
      case HELP: dprintf(STDOUT_FILENO, "%s", usage); _exit(0);
    }
  }
  errno = 0;
  if (optind < count) fail("%s: not an option", arguments[optind]);
  uint64_t share = options.memory / PAGE / options.threads;
  if (share < 64 || share > 1 << 20) fail("--memory: want 256K to 4G for each thread");
}

static void open_binary(void) {
  const char *path = (const char *)getauxval(AT_EXECFN);
  struct stat status;
  binary_file = open(path, O_RDONLY | O_CLOEXEC);
  if (binary_file < 0 || fstat(binary_file, &status)) fail("opening the own binary %s", path);
  binary_pages = (unsigned)(status.st_size / PAGE);
  binary = map_memory((size_t)binary_pages * PAGE, MAP_PRIVATE);
  for (size_t got = 0; got < (size_t)binary_pages * PAGE;) {
    ssize_t count = pread(binary_file, binary + got, (size_t)binary_pages * PAGE - got, (off_t)got);
    if (count <= 0) fail("reading the own binary %s", path);
    got += (size_t)count;
  }
}

// Windows lie far from where the kernel puts anything by itself.
static void start_tormentors(void) {
  tormentors = map_memory(options.threads * sizeof *tormentors, MAP_PRIVATE);
  for (unsigned index = 0; index < options.threads; index++) {
    struct tormentor *one = &tormentors[index];
    one->budget = (unsigned)(options.memory / PAGE / options.threads);
    one->random.state = mix(options.seed ^ mix(index));
    uint8_t *reserve = (uint8_t *)(0x200800000000 + ((uintptr_t)index << 36));
    if (mmap(reserve, RESERVED, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) == MAP_FAILED)
      fail("reserving address space");
    one->reserve = new_space(reserve, RESERVE_TABLES * TABLE_SLOTS);
    model_map(&one->reserve, 0, one->reserve.slots,
              (struct page){.kind = PRIVATE, .protection = PROT_NONE, .area = ++one->last_area});
    one->window = new_space((uint8_t *)(0x200000000000 + ((uintptr_t)index << 36)), one->budget * 3 + HUGE_SLOTS);
  }
  for (unsigned index = options.threads; index--;) start_thread(work, &tormentors[index], 256 * 1024);
}

int main(int count, char **arguments) {
  parse_options(count, arguments);
  control_install();
  struct sigaction action = {.sa_sigaction = report_fault, .sa_flags = SA_SIGINFO};
  sigaction(SIGSEGV, &action, NULL);
  sigaction(SIGBUS, &action, NULL);
  open_binary();
  started = now_ns();
  start_tormentors();
  static struct line line;
  line_add(&line, "{\"ready\":\"torture\",\"pid\":%d}", getpid());
  line_send(&line);
  serve();
}
