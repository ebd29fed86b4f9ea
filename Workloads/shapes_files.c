// Kinds of state in the file system, and behind descriptors of regular files.
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "shapes.h"

static void path_of(char path[static 512], const char *folder, const char *name, unsigned long number) {
  snprintf(path, 512, "%s/%s.%lu", folder, name, number);
}

static int make_file(const char *path, int flags) {
  return MUST(open(path, O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC | flags, 0644));
}

// Inode numbers differ from host to host, and a move may come between two looks at a file: then they are looked at again.
static bool are_same(int number, const char *path) {
  struct stat open, there;
  for (unsigned time = 0; time < 5; time++) {
    MUST(number == AT_FDCWD ? stat(".", &open) : fstat(number, &open));
    MUST(stat(path, &there));
    if (open.st_ino == there.st_ino && open.st_dev == there.st_dev) return true;
  }
  return false;
}

// -- replaced: a file that is renamed away or replaced while it is open; the open descriptor is always the file at its path

enum { OLD = 20 };
struct replaced {
  char folder[256], current[512];
  int number;
  unsigned style;
  uint64_t pause;
  unsigned long generation, bytes;
  unsigned long old_generation[OLD], old_bytes[OLD];
};

static void append(struct replaced *all) {
  uint8_t bytes[100];
  fill_bytes(bytes, sizeof bytes, all->generation, all->bytes);
  SAME("bytes written", sizeof bytes, write(all->number, bytes, sizeof bytes));
  all->bytes += sizeof bytes;
}

static void set_up_replaced(void *state, struct random *random) {
  struct replaced *all = state;
  make_folder(all->folder, "replaced", random);
  snprintf(all->current, sizeof all->current, "%s/current", all->folder);
  all->style = (unsigned)random_below(random, 3);
  all->pause = 100 << random_below(random, 6);
  all->number = make_file(all->current, O_APPEND);
  append(all);
}

static void check_content(const char *path, unsigned long generation, unsigned long size) {
  uint8_t bytes[8192];
  int file = MUST(open(path, O_RDONLY | O_CLOEXEC));
  SAME(path, size, read(file, bytes, sizeof bytes));
  check_bytes(path, bytes, size, generation, 0);
  close(file);
}

static void check_replaced(struct replaced *all) {
  if (!are_same(all->number, all->current)) {
    char link[64], target[512] = "";
    snprintf(link, sizeof link, "/proc/self/fd/%d", all->number);
    if (readlink(link, target, sizeof target - 1) < 0) target[0] = 0;
    wrong("generation %lu: the open file is %s, not %s", all->generation, target, all->current);
  }
  check_content(all->current, all->generation, all->bytes);
}

static void replace(struct replaced *all) {
  char old[512], fresh[512];
  path_of(old, all->folder, "old", all->generation % OLD);
  all->old_generation[all->generation % OLD] = all->generation;
  all->old_bytes[all->generation % OLD] = all->bytes;
  snprintf(fresh, sizeof fresh, "%s/fresh", all->folder);
  int file;
  switch (all->style) {
    case 0:  // Rotated: renamed away, then made anew.
      MUST(rename(all->current, old));
      file = make_file(all->current, O_APPEND);
      break;
    case 1:  // Replaced at once; another name keeps the old one.
      file = make_file(fresh, O_APPEND);
      unlink(old);
      MUST(link(all->current, old));
      MUST(rename(fresh, all->current));
      break;
    default:  // Swapped.
      file = make_file(fresh, O_APPEND);
      MUST(renameat2(AT_FDCWD, fresh, AT_FDCWD, all->current, RENAME_EXCHANGE));
      MUST(rename(fresh, old));
  }
  MUST(dup3(file, all->number, O_CLOEXEC));
  close(file);
  all->generation++;
  all->bytes = 0;
  append(all);
}

static void turn_replaced(void *state, struct random *random) {
  struct replaced *all = state;
  for (int time = 0; time < 3; time++) {
    check_replaced(all);
    if (random_below(random, 2) && all->bytes < 4096) append(all);
    rest(all->pause);
  }
  if (all->generation) {
    unsigned long which = random_below(random, all->generation < OLD ? all->generation : OLD);
    char old[512];
    path_of(old, all->folder, "old", which);
    check_content(old, all->old_generation[which], all->old_bytes[which]);
  }
  replace(all);
}

// -- descriptors: opened, duplicated, renumbered and closed; offsets and flags

enum { FILES = 4, SLOTS = 40, FIRST = 300, FILE_SIZE = 64 * 1024 };
struct descriptors {
  char folder[256];
  struct open {
    unsigned file, references;
    off_t offset;
    int flags;
  } opens[SLOTS];
  struct slot {
    struct open *open;  // NULL: the number is closed.
    bool close_on_exec;
  } slots[SLOTS];
};

// The last ones stand far above the others.
static int number_of(unsigned slot) { return FIRST + (int)slot + (slot >= SLOTS - 2 ? 500 : 0); }

static void set_up_descriptors(void *state, struct random *random) {
  struct descriptors *all = state;
  make_folder(all->folder, "descriptors", random);
  for (unsigned index = 0; index < FILES; index++) {
    char path[512];
    static uint8_t bytes[FILE_SIZE];
    path_of(path, all->folder, "file", index);
    int file = make_file(path, 0);
    fill_bytes(bytes, sizeof bytes, index, 0);
    SAME("bytes written", sizeof bytes, write(file, bytes, sizeof bytes));
    close(file);
  }
}

static void check_descriptor(struct descriptors *all, unsigned index) {
  struct slot *slot = &all->slots[index];
  int number = number_of(index);
  if (!slot->open) {
    if (fcntl(number, F_GETFD) != -1) wrong("descriptor %d is open", number);
    return;
  }
  char path[512];
  path_of(path, all->folder, "file", slot->open->file);
  if (!are_same(number, path)) wrong("descriptor %d is not %s", number, path);
  SAME("offset", slot->open->offset, lseek(number, 0, SEEK_CUR));
  SAME("close-on-exec", slot->close_on_exec, fcntl(number, F_GETFD) == FD_CLOEXEC);
  SAME("flags", slot->open->flags, fcntl(number, F_GETFL) & (O_APPEND | O_NONBLOCK | O_ACCMODE));
}

static void close_slot(struct slot *slot, int number) {
  MUST(close(number));
  slot->open->references--;
  slot->open = NULL;
}

static void open_slot(struct descriptors *all, unsigned index, struct random *random) {
  struct open *open = all->opens;
  while (open->references) open++;
  *open = (struct open){.file = (unsigned)random_below(random, FILES), .references = 1, .flags = O_RDWR};
  char path[512];
  path_of(path, all->folder, "file", open->file);
  int file = MUST(openat(AT_FDCWD, path, O_RDWR | O_CLOEXEC));
  MUST(dup3(file, number_of(index), O_CLOEXEC));
  close(file);
  all->slots[index] = (struct slot){open, true};
}

static void turn_descriptors(void *state, struct random *random) {
  struct descriptors *all = state;
  for (unsigned index = 0; index < SLOTS; index++) check_descriptor(all, index);
  unsigned index = (unsigned)random_below(random, SLOTS), other = (unsigned)random_below(random, SLOTS);
  struct slot *slot = &all->slots[index];
  int number = number_of(index);
  if (!slot->open) return open_slot(all, index, random);
  switch (random_below(random, 5)) {
    case 0: close_slot(slot, number); break;
    case 1:
      if (index == other) break;
      if (all->slots[other].open) close_slot(&all->slots[other], number_of(other));
      MUST(dup3(number, number_of(other), 0));
      all->slots[other] = (struct slot){slot->open, false};
      slot->open->references++;
      break;
    case 2:
      slot->open->flags = O_RDWR | (random_below(random, 2) ? O_APPEND : 0) | (random_below(random, 2) ? O_NONBLOCK : 0);
      MUST(fcntl(number, F_SETFL, slot->open->flags));
      break;
    case 3: slot->open->offset = MUST(lseek(number, (off_t)random_below(random, FILE_SIZE), SEEK_SET)); break;
    default: {
      uint8_t bytes[300];
      ssize_t count = MUST(read(number, bytes, sizeof bytes));
      check_bytes("file", bytes, (size_t)count, slot->open->file, (uint64_t)slot->open->offset);
      slot->open->offset += count;
    }
  }
}

// -- tree: files with holes, hard and symbolic links, folders; made, changed, renamed and removed

enum { NAMES = 24, LARGEST = 300 * 1024 };
enum what { NOTHING, REGULAR, FOLDER, SYMBOLIC };
struct tree {
  char folder[256];
  struct name {
    enum what what;
    uint64_t stream;  // What its content is, and a symbolic link's target.
    off_t begin, end;  // A file has content in between, and a hole before it.
    unsigned links;
  } names[NAMES];
};

static void set_up_tree(void *state, struct random *random) {
  make_folder(((struct tree *)state)->folder, "tree", random);
}

static void check_name(struct tree *all, unsigned index) {
  struct name *name = &all->names[index];
  char path[512], target[64], found[64] = "";
  struct stat status;
  path_of(path, all->folder, "name", index);
  if (lstat(path, &status)) {
    if (name->what != NOTHING) wrong("%s: %s", path, strerror(errno));
    return;
  }
  static const mode_t types[] = {0, S_IFREG, S_IFDIR, S_IFLNK};
  SAME(path, types[name->what], status.st_mode & S_IFMT);
  if (name->what == SYMBOLIC) {
    snprintf(target, sizeof target, "target.%llx", (unsigned long long)name->stream);
    MUST(readlink(path, found, sizeof found - 1));
    if (strcmp(target, found)) wrong("%s leads to %s instead of %s", path, found, target);
  }
  if (name->what != REGULAR) return;
  static uint8_t bytes[LARGEST];
  SAME(path, name->end, status.st_size);
  int file = MUST(open(path, O_RDONLY | O_CLOEXEC));
  SAME(path, name->end, read(file, bytes, sizeof bytes));
  for (off_t place = 0; place < name->begin; place++) SAME(path, 0, bytes[place]);
  check_bytes(path, bytes + name->begin, (size_t)(name->end - name->begin), name->stream, (uint64_t)name->begin);
  close(file);
}

static void make_name(struct tree *all, unsigned index, struct random *random) {
  struct name *name = &all->names[index];
  char path[512], target[64];
  path_of(path, all->folder, "name", index);
  *name = (struct name){.what = (enum what)(1 + random_below(random, 3)), .stream = random_next(random)};
  if (name->what == FOLDER) MUST(mkdir(path, 0755));
  if (name->what == SYMBOLIC) {
    snprintf(target, sizeof target, "target.%llx", (unsigned long long)name->stream);
    MUST(symlink(target, path));
  }
  if (name->what != REGULAR) return;
  name->begin = random_below(random, 2) ? 0 : (off_t)random_below(random, LARGEST / 2);
  name->end = name->begin + (off_t)random_below(random, 9000);
  static uint8_t bytes[9000];
  size_t count = (size_t)(name->end - name->begin);
  fill_bytes(bytes, count, name->stream, (uint64_t)name->begin);
  int file = make_file(path, 0);
  MUST(ftruncate(file, name->end));
  SAME("bytes written", count, pwrite(file, bytes, count, name->begin));
  close(file);
}

static void grow_name(struct tree *all, unsigned index) {
  struct name *name = &all->names[index];
  char path[512];
  uint8_t bytes[500];
  if (name->what != REGULAR || name->end + 500 > LARGEST) return;
  path_of(path, all->folder, "name", index);
  fill_bytes(bytes, sizeof bytes, name->stream, (uint64_t)name->end);
  int file = MUST(open(path, O_WRONLY | O_APPEND | O_CLOEXEC));
  SAME("bytes written", sizeof bytes, write(file, bytes, sizeof bytes));
  close(file);
  name->end += (off_t)sizeof bytes;
}

static void turn_tree(void *state, struct random *random) {
  struct tree *all = state;
  unsigned present = 0, found = 0;
  for (unsigned index = 0; index < NAMES; index++) {
    if (index % 4 == random_below(random, 4)) check_name(all, index);
    present += all->names[index].what != NOTHING;
  }
  DIR *folder = opendir(all->folder);
  if (!folder) wrong("%s: %s", all->folder, strerror(errno));
  while (readdir(folder)) found++;
  closedir(folder);
  // Which one is too many, or missing.
  for (unsigned index = 0; index < NAMES && found != present + 2; index++) check_name(all, index);
  SAME("names in the folder", present + 2, found);

  unsigned index = (unsigned)random_below(random, NAMES), other = (unsigned)random_below(random, NAMES);
  char path[512], to[512];
  path_of(path, all->folder, "name", index);
  path_of(to, all->folder, "name", other);
  if (all->names[index].what == NOTHING) return make_name(all, index, random);
  switch (random_below(random, 3)) {
    case 0:
      MUST(remove(path));
      all->names[index].what = NOTHING;
      break;
    case 1:
      if (all->names[other].what != NOTHING) break;
      MUST(rename(path, to));
      all->names[other] = all->names[index];
      all->names[index].what = NOTHING;
      break;
    default: grow_name(all, index);
  }
}

// -- cwd: the working directory, which changes and is renamed while it is that; the umask

struct cwd {
  char folder[256], path[512];
  unsigned long here, name;
  mode_t mask;
};

static void set_up_cwd(void *state, struct random *random) {
  struct cwd *all = state;
  make_folder(all->folder, "cwd", random);
  path_of(all->path, all->folder, "place", 0);
  MUST(mkdir(all->path, 0755));
  MUST(chdir(all->path));
  umask(all->mask = 022);
}

static void turn_cwd(void *state, struct random *random) {
  struct cwd *all = state;
  char found[PATH_MAX], path[512];
  if (!getcwd(found, sizeof found)) wrong("getcwd: %s", strerror(errno));
  if (strcmp(found, all->path)) wrong("the working directory is %s instead of %s", found, all->path);
  if (!are_same(AT_FDCWD, all->path)) wrong("the working directory is not %s", all->path);
  SAME("umask", all->mask, umask(all->mask));
  switch (random_below(random, 4)) {
    case 0: umask(all->mask = (mode_t)random_below(random, 0100)); break;
    case 1:  // Renamed under our feet.
      path_of(path, all->folder, "place", ++all->name);
      MUST(rename(all->path, path));
      strcpy(all->path, path);
      break;
    case 2:  // Another one, and the old one goes.
      path_of(path, all->folder, "place", ++all->name);
      MUST(mkdir(path, 0777));
      MUST(chmod(path, 0755));
      MUST(chdir(path));
      MUST(rmdir(all->path));
      strcpy(all->path, path);
      break;
    default: rest(1000);
  }
}

const struct kind file_kinds[] = {
    {"replaced", NULL, sizeof(struct replaced), set_up_replaced, turn_replaced, NULL},
    {"descriptors", NULL, sizeof(struct descriptors), set_up_descriptors, turn_descriptors, NULL},
    {"tree", NULL, sizeof(struct tree), set_up_tree, turn_tree, NULL},
    {"cwd", NULL, sizeof(struct cwd), set_up_cwd, turn_cwd, NULL},
    {0},
};
