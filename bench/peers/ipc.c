/* Two pinned processes that exchange messages by the kernel: the baselines of `arrakis bench ipc`.
 *
 *   ipc unix|unix-poll|pipe SERVER_CPU CLIENT_CPU BYTES WARMUP ROUND_TRIPS MESSAGES
 *
 * The parent is the client. First round trips one at a time, each with its own two clock readings; then MESSAGES one
 * way, written one by one (a message is a write), read as many at a time as there are, and acknowledged at the end.
 * With unix-poll nobody sleeps: both ask the kernel again and again, as those do who poll memory.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

static char buffer[1 << 16];

static void pin(int cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cpu, &set);
  sched_setaffinity(0, sizeof set, &set);
}

static double now_us(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1e6 + t.tv_nsec / 1e3;
}

static void get(int fd, size_t bytes) {
  while (bytes > 0) {
    ssize_t n = read(fd, buffer, bytes);
    if (n < 0 && errno == EAGAIN) continue;
    if (n <= 0) exit(1);
    bytes -= (size_t)n;
  }
}

static void put(int fd, size_t bytes) {
  size_t done = 0;
  while (done < bytes) {
    ssize_t n = write(fd, buffer, bytes - done);
    if (n < 0 && errno == EAGAIN) continue;
    if (n <= 0) exit(1);
    done += (size_t)n;
  }
}

static int compare(const void *a, const void *b) {
  double d = *(const double *)a - *(const double *)b;
  return d < 0 ? -1 : d > 0;
}

static void serve(int in, int out, size_t bytes, long trips, long messages) {
  for (long i = 0; i < trips; i++) {
    get(in, bytes);
    put(out, bytes);
  }
  size_t left = bytes * (size_t)messages;
  while (left > 0) {
    ssize_t n = read(in, buffer, left < sizeof buffer ? left : sizeof buffer);
    if (n < 0 && errno == EAGAIN) continue;
    if (n <= 0) exit(1);
    left -= (size_t)n;
  }
  put(out, 1);
}

int main(int argc, char **argv) {
  if (argc != 8) return 2;
  int server_cpu = atoi(argv[2]), client_cpu = atoi(argv[3]);
  size_t bytes = (size_t)atol(argv[4]);
  long warmup = atol(argv[5]), trips = atol(argv[6]), messages = atol(argv[7]);
  int to[2], from[2];
  if (bytes == 0 || bytes > sizeof buffer || trips < 1) return 2;
  if (strncmp(argv[1], "unix", 4) == 0) {
    int pair[2], flags = strcmp(argv[1], "unix-poll") == 0 ? SOCK_NONBLOCK : 0;
    if (socketpair(AF_UNIX, SOCK_STREAM | flags, 0, pair) != 0) return 1;
    to[1] = from[0] = pair[0];
    to[0] = from[1] = pair[1];
  } else if (pipe(to) != 0 || pipe(from) != 0) {
    return 1;
  }
  if (fork() == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    pin(server_cpu);
    serve(to[0], from[1], bytes, warmup + trips, messages);
    _exit(0);
  }
  pin(client_cpu);
  double *samples = malloc(sizeof(double) * (size_t)trips);
  for (long i = -warmup; i < trips; i++) {
    double start = now_us();
    put(to[1], bytes);
    get(from[0], bytes);
    if (i >= 0) samples[i] = now_us() - start;
  }
  double start = now_us();
  for (long i = 0; i < messages; i++) put(to[1], bytes);
  get(from[0], 1);
  double seconds = (now_us() - start) / 1e6;
  wait(NULL);
  qsort(samples, (size_t)trips, sizeof(double), compare);
  printf("{\"rtt\":{\"p50\":%.3f,\"p99\":%.3f,\"p999\":%.3f},\"messagesPerSecond\":%.0f}\n",
         samples[trips / 2], samples[trips * 99 / 100], samples[trips * 999 / 1000],
         (double)messages / seconds);
  return 0;
}
