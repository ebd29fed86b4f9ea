// Counts the real-time signals that it gets: 36 by the process, 37 by its second thread. Prints both counts when one has changed.
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <time.h>

static volatile long ofProcess, ofThread;

static void hit(int number) { (*(number == 36 ? &ofProcess : &ofThread))++; }

static void rest(void) {
  struct timespec time = {0, 5000000};
  nanosleep(&time, NULL);
}

static void *second(void *unused) {
  for (;;) rest();
  return unused;
}

int main(void) {
  struct sigaction action = {.sa_handler = hit, .sa_flags = SA_RESTART};
  sigaction(36, &action, NULL);
  sigaction(37, &action, NULL);
  pthread_t thread;
  pthread_create(&thread, NULL, second, NULL);
  printf("{\"ready\"}\n");
  for (long process = -1, own = -1;; rest()) {
    if (process == ofProcess && own == ofThread) continue;
    process = ofProcess;
    own = ofThread;
    printf("got %ld and %ld\n", process, own);
    fflush(stdout);
  }
}
