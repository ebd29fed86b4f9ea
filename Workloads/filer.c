// Does to its files what programs do, and checks them all the time.
//   filer rotate MICROSECONDS FOLDER...  keeps a file "current" open in each folder and replaces it again and again: the old
//                                        one is renamed away, a new one is opened in its place
//   filer database MEGABYTES FOLDER      writes eight bytes somewhere in a large file every 20 ms, and compares
//   filer sparse GIGABYTES FOLDER        the same in a file that is mostly holes
//   filer many COUNT FOLDER              has many files, of which one changes every 20 ms
//   filer folder FOLDER                  holds a folder open of which it has read a part
//   filer sqlite FOLDER                  holds a database file in SQLite's rollback journal mode open (wal: in WAL mode)
// It works in a folder and holds a file open whose names end in " (deleted)". SIGUSR1: it says {"oracle":"ok"}; a wrong
// byte or file ends it with status 42 and a line that says so.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static volatile sig_atomic_t asked;

static void ask(int signal) {
  (void)signal;
  asked = 1;
}

static void say(const char *format, ...) {
  char line[1024];
  va_list arguments;
  va_start(arguments, format);
  int size = vsnprintf(line, sizeof line - 1, format, arguments);
  va_end(arguments);
  if (size > (int)sizeof line - 2) size = sizeof line - 2;
  line[size++] = '\n';
  if (write(1, line, (size_t)size) != size) _exit(99);
}

#define MUST(call)                                                                        \
  ({                                                                                      \
    __typeof__(call) result_ = (call);                                                    \
    if ((long)result_ == -1) {                                                            \
      say("{\"oracle\":\"failed\",\"why\":\"%s: %s\"}", #call, strerror(errno));          \
      exit(42);                                                                           \
    }                                                                                     \
    result_;                                                                              \
  })

static void wrong(const char *what, long where) {
  say("{\"oracle\":\"failed\",\"why\":\"%s\",\"at\":%ld}", what, where);
  exit(42);
}

static uint64_t mix(uint64_t z) {
  z += 0x9e3779b97f4a7c15;
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
  z = (z ^ z >> 27) * 0x94d049bb133111eb;
  return z ^ z >> 31;
}

static void answer(void) {
  if (!asked) return;
  asked = 0;
  say("{\"oracle\":\"ok\"}");
}

// Is the open file the one at its path? Its inode number is another one after a move, which may come between the two
// looks: only what both pairs of looks say holds.
static void expect_at(int file, const char *path, long turn) {
  struct stat open, there;
  for (int look = 0; look < 2; look++) {
    MUST(fstat(file, &open));
    MUST(stat(path, &there));
    if (open.st_ino == there.st_ino && open.st_dev == there.st_dev) return;
  }
  wrong("another file is open", turn);
}

static void rotate(int pause, int count, char **folders) {
  int files[8] = {-1, -1, -1, -1, -1, -1, -1, -1};
  char path[256], old[256], text[64];
  for (long turn = 0;; turn++) {
    for (int i = 0; i < count && i < 8; i++) {
      snprintf(path, sizeof path, "%s/current", folders[i]);
      if (files[i] >= 0) {
        expect_at(files[i], path, turn);
        snprintf(old, sizeof old, "%s/old.%ld", folders[i], turn % 20);
        MUST(rename(path, old));
      }
      int file = MUST(open(path, O_CREAT | O_EXCL | O_WRONLY | O_APPEND, 0644));
      if (files[i] >= 0) {
        MUST(dup2(file, files[i]));
        close(file);
      } else {
        files[i] = file;
      }
      int size = snprintf(text, sizeof text, "turn %ld\n", turn);
      MUST(write(files[i], text, (size_t)size));
      expect_at(files[i], path, turn);
    }
    if (turn == 0) say("{\"event\":\"ready\"}");
    answer();
    usleep((useconds_t)pause);
  }
}

// `step` bytes lie between two places that are written to.
static void write_places(const char *folder, long places, uint64_t step, int fill) {
  char path[256];
  snprintf(path, sizeof path, "%s/large", folder);
  int file = MUST(open(path, O_CREAT | O_EXCL | O_RDWR, 0600));
  static uint64_t block[131072];
  for (long i = 0; i < places; i++) {
    if (fill) {
      for (long k = 0; k < 131072; k++) block[k] = mix((uint64_t)i * 131072 + (uint64_t)k);
      MUST(write(file, block, sizeof block));
    } else {
      uint64_t value = mix((uint64_t)i * 131072);
      MUST(pwrite(file, &value, 8, (off_t)((uint64_t)i * step)));
    }
  }
  MUST(ftruncate(file, (off_t)((uint64_t)places * step)));
  static uint64_t expected[4096];
  if (places > 4096) wrong("at most 4096", places);
  for (long i = 0; i < places; i++) expected[i] = mix((uint64_t)i * 131072);
  say("{\"event\":\"ready\"}");
  for (uint64_t turn = 1;; turn++) {
    long place = (long)(mix(turn) % (uint64_t)places);
    expected[place] = turn;
    MUST(pwrite(file, &turn, 8, (off_t)((uint64_t)place * step)));
    for (long i = 0; i < places; i++) {
      uint64_t value = 0;
      MUST(pread(file, &value, 8, (off_t)((uint64_t)i * step)));
      if (value != expected[i]) wrong("a place holds another value", i);
    }
    expect_at(file, path, (long)turn);
    struct stat status;
    MUST(fstat(file, &status));
    if (!fill && status.st_blocks > places * 256 + 4096) wrong("it is not sparse any more", status.st_blocks);
    answer();
    usleep(20000);
  }
}

static void many(long count, const char *folder) {
  char path[256], text[64], there[64];
  for (long i = 0; i < count; i++) {
    if (i % 100 == 0) {
      snprintf(path, sizeof path, "%s/%ld", folder, i / 100);
      MUST(mkdir(path, 0755));
    }
    snprintf(path, sizeof path, "%s/%ld/%ld", folder, i / 100, i);
    int file = MUST(open(path, O_CREAT | O_EXCL | O_WRONLY, 0644));
    MUST(write(file, path, strlen(path)));
    close(file);
  }
  snprintf(path, sizeof path, "%s/0/0", folder);
  int file = MUST(open(path, O_RDWR));
  say("{\"event\":\"ready\"}");
  for (long turn = 1;; turn++) {
    int size = snprintf(text, sizeof text, "turn %020ld", turn);
    MUST(pwrite(file, text, (size_t)size, 0));
    usleep(20000);
    MUST(pread(file, there, (size_t)size, 0));
    if (memcmp(text, there, (size_t)size)) wrong("the file holds something else", turn);
    expect_at(file, path, turn);
    answer();
  }
}

static void hold_folder(const char *folder) {
  char entries[64];
  int file = MUST(open(folder, O_RDONLY | O_DIRECTORY));
  MUST(syscall(SYS_getdents64, file, entries, sizeof entries));
  say("{\"event\":\"ready\"}");
  for (;;) pause();
}

static void hold_database(const char *folder, uint8_t version) {
  char path[256];
  snprintf(path, sizeof path, "%s/base.db", folder);
  uint8_t header[100] = "SQLite format 3";
  header[18] = header[19] = version;
  int file = MUST(open(path, O_CREAT | O_RDWR, 0600));
  MUST(pwrite(file, header, sizeof header, 0));
  say("{\"event\":\"ready\"}");
  for (long turn = 0;; turn++) {
    expect_at(file, path, turn);
    answer();
    usleep(20000);
  }
}

static const char usage[] = "usage: filer rotate|database|sparse|many NUMBER FOLDER... | folder|sqlite|wal FOLDER\n";

int main(int count, char **words) {
  if (count < 3) {
    fputs(usage, stderr);
    return 2;
  }
  struct sigaction action = {.sa_handler = ask};
  sigaction(SIGUSR1, &action, NULL);
  const char *how = words[1];
  int first = strcmp(how, "sqlite") && strcmp(how, "wal") && strcmp(how, "folder") ? 3 : 2;
  for (int i = first; i < count; i++) mkdir(words[i], 0755);
  const char *folder = words[first];
  char odd[256];
  snprintf(odd, sizeof odd, "%s/odd (deleted)", folder);
  MUST(mkdir(odd, 0755));
  MUST(chdir(odd));
  MUST(open("file (deleted)", O_CREAT | O_RDWR, 0600));
  long number = atol(words[2]);
  if (!strcmp(how, "rotate")) rotate((int)number, count - first, words + first);
  if (!strcmp(how, "database")) write_places(folder, number, 1 << 20, 1);
  if (!strcmp(how, "sparse")) write_places(folder, number, 1 << 30, 0);
  if (!strcmp(how, "many")) many(number, folder);
  if (!strcmp(how, "folder")) hold_folder(folder);
  if (!strcmp(how, "sqlite")) hold_database(folder, 1);
  if (!strcmp(how, "wal")) hold_database(folder, 2);
  fputs(usage, stderr);
  return 2;
}
