// Kinds of state of the address space.
#define _GNU_SOURCE
#include <sys/mman.h>
#include <unistd.h>

#include "shapes.h"

// -- mappings: made, grown, moved, protected, emptied and removed; every page has its own stamp

enum { MAPPINGS = 24, MOST_PAGES = 64 };
struct mappings {
  uint64_t next;
  struct mapping {
    uint8_t *at;  // NULL: none.
    unsigned pages;
    bool shared, read_only;
    uint64_t stamps[MOST_PAGES];  // 0: never written, or emptied.
  } mappings[MAPPINGS];
};

static uint64_t *page_of(struct mapping *mapping, unsigned page) {
  return (uint64_t *)(void *)(mapping->at + page * PAGE);
}

static void check_mapping(struct mapping *mapping) {
  for (unsigned page = 0; page < mapping->pages; page++) {
    SAME("stamp of a page", mapping->stamps[page], *page_of(mapping, page));
    SAME("end of a page", mapping->stamps[page], page_of(mapping, page)[PAGE / 8 - 1]);
  }
}

static void write_pages(struct mappings *all, struct mapping *mapping, struct random *random) {
  if (mapping->read_only) return;
  for (unsigned page = 0; page < mapping->pages; page++) {
    if (random_below(random, 3)) continue;
    mapping->stamps[page] = ++all->next;
    *page_of(mapping, page) = page_of(mapping, page)[PAGE / 8 - 1] = mapping->stamps[page];
  }
}

static void *mapped(void *at) {
  if (at == MAP_FAILED) wrong("mapping memory: %s", strerror(errno));
  return at;
}

static void resize(struct mapping *mapping, struct random *random) {
  unsigned pages = 1 + (unsigned)random_below(random, MOST_PAGES);
  // Shared memory is an object of its first size.
  if (mapping->shared && pages > mapping->pages) return;
  mapping->at = mapped(mremap(mapping->at, mapping->pages * PAGE, pages * PAGE, MREMAP_MAYMOVE));
  for (unsigned page = mapping->pages; page < pages; page++) mapping->stamps[page] = 0;
  mapping->pages = pages;
}

static void turn_mapping(struct mappings *all, struct mapping *mapping, struct random *random) {
  if (!mapping->at) {
    *mapping = (struct mapping){.pages = 1 + (unsigned)random_below(random, MOST_PAGES), .shared = random_below(random, 3) == 0};
    mapping->at = mapped(mmap(NULL, mapping->pages * PAGE, PROT_READ | PROT_WRITE,
                              MAP_ANONYMOUS | (mapping->shared ? MAP_SHARED : MAP_PRIVATE), -1, 0));
    return;
  }
  unsigned page = (unsigned)random_below(random, mapping->pages);
  switch (random_below(random, 8)) {
    case 0:
      MUST(munmap(mapping->at, mapping->pages * PAGE));
      mapping->at = NULL;
      break;
    case 1: resize(mapping, random); break;
    case 2:
      mapping->read_only = !mapping->read_only;
      MUST(mprotect(mapping->at, mapping->pages * PAGE, PROT_READ | (mapping->read_only ? 0 : PROT_WRITE)));
      break;
    case 3:
      // Shared memory keeps what it holds.
      if (mapping->shared) break;
      MUST(madvise(page_of(mapping, page), PAGE, MADV_DONTNEED));
      mapping->stamps[page] = 0;
      break;
    default: write_pages(all, mapping, random);
  }
}

static void set_up_mappings(void *state, struct random *random) {
  struct mappings *all = state;
  for (unsigned index = 0; index < MAPPINGS; index++) turn_mapping(all, &all->mappings[index], random);
}

static void turn_mappings(void *state, struct random *random) {
  struct mappings *all = state;
  for (unsigned index = 0; index < MAPPINGS; index++)
    if (all->mappings[index].at) check_mapping(&all->mappings[index]);
  for (unsigned time = 0; time < 4; time++) turn_mapping(all, &all->mappings[random_below(random, MAPPINGS)], random);
}

// -- reservations: address space without memory, with a little that can be used

enum { POCKETS = 12, POCKET = 64 * 1024 };
struct reservations {
  uint8_t *at;
  size_t size;
  uint64_t next;
  struct {
    uint8_t *at;  // NULL: none.
    uint64_t stream;
  } pockets[POCKETS];
};

static void set_up_reservations(void *state, struct random *random) {
  struct reservations *all = state;
  all->size = (1ul << 30) << random_below(random, 3);
  all->at = mapped(mmap(NULL, all->size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
}

static void turn_reservations(void *state, struct random *random) {
  struct reservations *all = state;
  for (unsigned index = 0; index < POCKETS; index++)
    if (all->pockets[index].at) check_bytes("pocket", all->pockets[index].at, 1000, all->pockets[index].stream, 0);
  unsigned index = (unsigned)random_below(random, POCKETS);
  uint8_t *at = all->pockets[index].at;
  if (at) {
    MUST(madvise(at, POCKET, MADV_DONTNEED));
    MUST(mprotect(at, POCKET, PROT_NONE));
    all->pockets[index].at = NULL;
    return;
  }
  // Each has a stretch of its own.
  size_t stretch = all->size / POCKETS / POCKET;
  at = all->at + (index * stretch + random_below(random, stretch)) * POCKET;
  MUST(mprotect(at, POCKET, PROT_READ | PROT_WRITE));
  all->pockets[index].at = at;
  all->pockets[index].stream = ++all->next;
  fill_bytes(at, 1000, all->next, 0);
}

const struct kind memory_kinds[] = {
    {"mappings", NULL, sizeof(struct mappings), set_up_mappings, turn_mappings, NULL},
    {"reservations", NULL, sizeof(struct reservations), set_up_reservations, turn_reservations, NULL},
    {0},
};
