/*
 * Both ends of a long transfer, for the benchmark of forwarders; they cost as little as they can.
 *
 *     bulk source
 *     bulk sink PORT CONNECTIONS BYTES
 *
 * source: a server. A connection asks for a number of bytes (8 bytes, in the order of this machine), gets them, and is closed. It
 * prints its port, and ends with its standard input.
 *
 * sink: a client. Each of CONNECTIONS asks for its part of BYTES and reads until the end, which has to come after
 * exactly so many. It prints the seconds that this took. The first and the last MiB of each connection are compared with
 * what was sent; what lies between is dropped in the kernel (MSG_TRUNC), as a byte lost or doubled there shows in what
 * follows. Anything unexpected is told, and the exit status is 1.
 */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define PATIENCE 10000 /* milliseconds without any progress */
#define EVENTS 256
#define PERIOD 251     /* of the bytes that are sent: prime, so that no buffer's size is a multiple */
#define CHUNK 262144
#define COMPARED (1 << 20)

struct end {
    int fd;
    size_t asked; /* bytes of the request that have come */
    uint64_t wanted, done;
};

static int epoll;
static char pattern[CHUNK + PERIOD];

static void fail(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fputs("bulk: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    exit(1);
}

static void watch(struct end *end, int operation, unsigned wanted) {
    struct epoll_event event = {.events = wanted, .data.ptr = end};
    if (epoll_ctl(epoll, operation, end->fd, &event) < 0)
        fail("epoll_ctl: %s", strerror(errno));
}

static size_t least(uint64_t left, size_t most) {
    return left < most ? left : most;
}

/* -- the source */

static void drop(struct end *client) {
    close(client->fd);
    free(client);
}

static void admit(int listener) {
    int fd;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
        struct end *client = calloc(1, sizeof *client);
        if (!client)
            fail("out of memory");
        client->fd = fd;
        watch(client, EPOLL_CTL_ADD, EPOLLIN);
    }
}

static void hear(struct end *client) {
    char *place = (char *)&client->wanted + client->asked;
    ssize_t length = recv(client->fd, place, sizeof client->wanted - client->asked, 0);
    if (length < 0 && errno == EAGAIN)
        return;
    if (length <= 0) {
        drop(client);
        return;
    }
    client->asked += length;
    if (client->asked == sizeof client->wanted)
        watch(client, EPOLL_CTL_MOD, EPOLLOUT);
}

static void give(struct end *client) {
    while (client->done < client->wanted) {
        size_t length = least(client->wanted - client->done, CHUNK);
        ssize_t sent = send(client->fd, pattern + client->done % PERIOD, length, MSG_NOSIGNAL);
        if (sent < 0 && errno == EAGAIN)
            return;
        if (sent < 0)
            break;
        client->done += sent;
    }
    drop(client);
}

static void source(void) {
    struct sockaddr_in place = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof place;
    struct end port = {.fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0)}, input = {.fd = 0};
    if (bind(port.fd, (struct sockaddr *)&place, length) < 0 || listen(port.fd, 511) < 0)
        fail("listen: %s", strerror(errno));
    getsockname(port.fd, (struct sockaddr *)&place, &length);
    watch(&port, EPOLL_CTL_ADD, EPOLLIN);
    watch(&input, EPOLL_CTL_ADD, EPOLLIN);
    printf("%d\n", ntohs(place.sin_port));
    fflush(stdout);
    struct epoll_event events[EVENTS];
    for (;;) {
        int ready = epoll_wait(epoll, events, EVENTS, -1);
        for (int index = 0; index < ready; index++) {
            struct end *client = events[index].data.ptr;
            char line[64];
            if (client == &port)
                admit(port.fd);
            else if (client == &input) {
                if (read(0, line, sizeof line) <= 0)
                    return;
            } else if (client->asked < sizeof client->wanted)
                hear(client);
            else
                give(client);
        }
    }
}

/* -- the sink */

/* One read; says whether this was the end. */
static int take(struct end *server) {
    static char chunk[CHUNK];
    uint64_t left = server->wanted - server->done;
    int compared = server->done < COMPARED || left <= COMPARED;
    size_t length = least(compared ? left : left - COMPARED, compared ? CHUNK : COMPARED);
    ssize_t got = recv(server->fd, chunk, length ? length : 1, MSG_DONTWAIT | (compared ? 0 : MSG_TRUNC));
    if (got < 0 && errno == EAGAIN)
        return 0;
    if (got < 0)
        fail("recv: %s, after %llu bytes", strerror(errno), (unsigned long long)server->done);
    if (got == 0 && left)
        fail("the end came after %llu bytes", (unsigned long long)server->done);
    if (got == 0)
        return 1;
    if (!left)
        fail("more came than was asked for");
    if (compared && memcmp(chunk, pattern + server->done % PERIOD, got))
        fail("what came is not what was sent, after %llu bytes", (unsigned long long)server->done);
    server->done += got;
    return 0;
}

static double seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec + now.tv_nsec * 1e-9;
}

static void sink(int port, int many, uint64_t bytes) {
    struct sockaddr_in place = {.sin_family = AF_INET, .sin_port = htons(port)};
    place.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    struct end *servers = calloc(many, sizeof *servers);
    double begun = seconds();
    for (int index = 0; index < many; index++) {
        struct end *server = &servers[index];
        server->wanted = bytes / many;
        server->fd = socket(AF_INET, SOCK_STREAM, 0);
        if (connect(server->fd, (struct sockaddr *)&place, sizeof place) < 0)
            fail("connect: %s", strerror(errno));
        if (send(server->fd, &server->wanted, sizeof server->wanted, MSG_NOSIGNAL) != sizeof server->wanted)
            fail("send: %s", strerror(errno));
        watch(server, EPOLL_CTL_ADD, EPOLLIN);
    }
    struct epoll_event events[EVENTS];
    for (int open = many; open;) {
        int ready = epoll_wait(epoll, events, EVENTS, PATIENCE);
        if (ready <= 0)
            fail(ready ? "epoll_wait: %s" : "nothing came for 10 s", strerror(errno));
        for (int index = 0; index < ready; index++) {
            struct end *server = events[index].data.ptr;
            if (take(server)) {
                close(server->fd);
                open--;
            }
        }
    }
    printf("%.9f\n", seconds() - begun);
}

int main(int count, char **arguments) {
    for (size_t index = 0; index < sizeof pattern; index++)
        pattern[index] = index % PERIOD;
    epoll = epoll_create1(0);
    if (count == 2 && !strcmp(arguments[1], "source"))
        source();
    else if (count == 5 && !strcmp(arguments[1], "sink"))
        sink(atoi(arguments[2]), atoi(arguments[3]), strtoull(arguments[4], NULL, 10));
    else
        fail("usage: bulk source | bulk sink PORT CONNECTIONS BYTES");
    return 0;
}
