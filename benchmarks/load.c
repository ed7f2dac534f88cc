/*
 * The load of the echo benchmarks: many clients in one thread, each with one message on its way.
 *
 *     load tcp|tls|udp|accept PID PORT CLIENTS SIZE WARM-UP SECONDS
 *
 * tcp, tls, udp: each client sends SIZE bytes, waits until all of them have come back, and sends again; a unit is such
 * a message. accept: each connects, has SIZE bytes echoed, resets the connection (what is closed in order would leave
 * 28,000 ports in TIME_WAIT), and connects again; a unit is such a connection.
 *
 * After WARM-UP seconds it counts for SECONDS, or until the first unit, and prints: units, seconds, and the seconds of
 * CPU that process PID used meanwhile. What comes back is compared with what was sent. Anything unexpected is told, and
 * the exit status is 1.
 */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#ifdef TLS
#include <openssl/ssl.h>
#endif

#define PATIENCE 10.0  /* seconds without any progress */
#define RESEND 1.0     /* seconds after which a datagram counts as lost */
#define EVENTS 256

enum { TCP, SECURE, UDP, ACCEPT };

struct client {
    int fd;
    int waiting; /* for room to send, or to be connected */
    size_t sent, received;
#ifdef TLS
    SSL *ssl;
#endif
};

static int mode, epoll;
static struct sockaddr_in server;
static size_t size;
static char *message, *scratch;
static unsigned long long units;

static void fail(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fputs("load: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    exit(1);
}

static double seconds(clockid_t clock) {
    struct timespec now;
    if (clock_gettime(clock, &now) < 0)
        fail("the server's CPU clock: %s", strerror(errno));
    return now.tv_sec + now.tv_nsec * 1e-9;
}

/* One transfer: the bytes that went, or -1 when none can go now. */
static ssize_t transfer(struct client *client, char *bytes, size_t length, int sending) {
    ssize_t done;
#ifdef TLS
    if (client->ssl) {
        done = sending ? SSL_write(client->ssl, bytes, length) : SSL_read(client->ssl, bytes, length);
        if (done > 0)
            return done;
        int why = SSL_get_error(client->ssl, done);
        if (why != SSL_ERROR_WANT_READ && why != SSL_ERROR_WANT_WRITE)
            fail("TLS failed: error %d while %s", why, sending ? "sending" : "receiving");
        return -1;
    }
#endif
    done = sending ? send(client->fd, bytes, length, MSG_NOSIGNAL) : recv(client->fd, bytes, length, 0);
    if (done == 0)
        fail("the server has closed a connection");
    if (done < 0 && errno != EAGAIN)
        fail("%s: %s", sending ? "send" : "recv", strerror(errno));
    return done;
}

static void watch(struct client *client, int operation, int waiting) {
    struct epoll_event event = {.events = EPOLLIN | (waiting ? EPOLLOUT : 0), .data.ptr = client};
    if (operation == EPOLL_CTL_MOD && waiting == client->waiting)
        return;
    client->waiting = waiting;
    if (epoll_ctl(epoll, operation, client->fd, &event) < 0)
        fail("epoll_ctl: %s", strerror(errno));
}

static void push(struct client *client) {
    while (client->sent < size) {
        ssize_t sent = transfer(client, message + client->sent, size - client->sent, 1);
        if (sent < 0)
            break;
        client->sent += sent;
    }
    watch(client, EPOLL_CTL_MOD, client->sent < size);
}

static void begin(struct client *client) {
    client->sent = client->received = 0;
    push(client);
}

/* Take what is there; says whether a message is whole. */
static int pull(struct client *client) {
    int more;
    do {
        ssize_t received = transfer(client, scratch, size - client->received, 0);
        if (received < 0)
            return 0;
        if (memcmp(scratch, message + client->received, received))
            fail("what came back is not what was sent");
        client->received += received;
        if (client->received == size)
            return 1;
        if (mode == UDP)
            fail("a datagram of %zd bytes came back for one of %zu", received, size);
        more = 0;
#ifdef TLS
        more = client->ssl && SSL_pending(client->ssl) > 0;
#endif
    } while (more);
    return 0;
}

static void unblock(int fd) {
    if (fcntl(fd, F_SETFL, O_NONBLOCK) < 0)
        fail("fcntl: %s", strerror(errno));
}

/* A socket that is connected when this returns, but in mode ACCEPT: there it is under way. */
static void dial(struct client *client) {
    int yes = 1;
    struct linger reset = {.l_onoff = 1, .l_linger = 0};
    client->fd = socket(AF_INET, mode == UDP ? SOCK_DGRAM : SOCK_STREAM, 0);
    if (client->fd < 0)
        fail("socket: %s", strerror(errno));
    if (mode != UDP) {
        setsockopt(client->fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
        setsockopt(client->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    }
    if (mode == ACCEPT)
        unblock(client->fd);
    if (connect(client->fd, (struct sockaddr *)&server, sizeof server) < 0 && errno != EINPROGRESS)
        fail("connect: %s", strerror(errno));
    client->sent = client->received = 0;
    watch(client, EPOLL_CTL_ADD, mode == ACCEPT);
}

#ifdef TLS
static void secure(struct client *client) {
    static SSL_CTX *context;
    if (!context) {
        context = SSL_CTX_new(TLS_client_method());
        SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE);
    }
    client->ssl = SSL_new(context);
    SSL_set_fd(client->ssl, client->fd);
    if (SSL_connect(client->ssl) != 1)
        fail("the TLS handshake failed");
}
#endif

/* Every client is accepted, and echoes, before the next one connects: no backlog can overflow. */
static void start(struct client *client) {
    dial(client);
    if (mode == ACCEPT)
        return;
#ifdef TLS
    if (mode == SECURE)
        secure(client);
#endif
    /* One message that is short enough to fit every buffer. */
    size_t whole = size, taken;
    size = whole < 64 ? whole : 64;
    struct timeval patience = {.tv_sec = (time_t)PATIENCE};
    setsockopt(client->fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    push(client);
    do {
        taken = client->received;
        if (pull(client))
            break;
    } while (client->received > taken);
    if (client->received < size)
        fail("the server did not echo within %.0f s", PATIENCE);
    size = whole;
    unblock(client->fd);
}

static void handle(struct client *client, unsigned events) {
    int error = 0;
    socklen_t length = sizeof error;
    if (client->waiting && events & (EPOLLOUT | EPOLLERR | EPOLLHUP)) {
        if (mode == ACCEPT && getsockopt(client->fd, SOL_SOCKET, SO_ERROR, &error, &length) == 0 && error)
            fail("connect: %s", strerror(error));
        push(client);
    }
    if (!(events & (EPOLLIN | EPOLLERR | EPOLLHUP)) || !pull(client))
        return;
    units++;
    if (mode == ACCEPT) {
        close(client->fd);
        dial(client);
    } else
        begin(client);
}

int main(int count, char **arguments) {
    static const char *const MODES[] = {"tcp", "tls", "udp", "accept"};
    if (count != 8)
        fail("usage: load tcp|tls|udp|accept PID PORT CLIENTS SIZE WARM-UP SECONDS");
    for (mode = 0; mode < 4 && strcmp(arguments[1], MODES[mode]); mode++)
        ;
#ifndef TLS
    if (mode == SECURE)
        fail("compiled without TLS");
#endif
    clockid_t cpu;
    if (mode == 4 || clock_getcpuclockid(atoi(arguments[2]), &cpu))
        fail("no such mode, or no such process");
    server = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(atoi(arguments[3]))};
    server.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int many = atoi(arguments[4]);
    size = atoi(arguments[5]);
    double warmUp = atof(arguments[6]), duration = atof(arguments[7]);

    message = malloc(size);
    scratch = malloc(size);
    struct client *clients = calloc(many, sizeof *clients);
    if (!message || !scratch || !clients)
        fail("out of memory");
    for (size_t index = 0; index < size; index++)
        message[index] = 'a' + index % 23;
    epoll = epoll_create1(0);
    for (int index = 0; index < many; index++)
        start(&clients[index]);
    if (mode != ACCEPT)
        for (int index = 0; index < many; index++)
            begin(&clients[index]);

    double now = seconds(CLOCK_MONOTONIC), progress = now, counted = now + warmUp, used = 0;
    int counting = 0;
    struct epoll_event events[EVENTS];
    for (;;) {
        now = seconds(CLOCK_MONOTONIC);
        if (!counting && now >= counted) {
            counting = 1;
            units = 0;
            counted = now;
            used = seconds(cpu);
        }
        if (counting && now >= counted + duration && units)
            break;
        int ready = epoll_wait(epoll, events, EVENTS, 50);
        if (ready < 0)
            fail("epoll_wait: %s", strerror(errno));
        unsigned long long before = units;
        for (int index = 0; index < ready; index++)
            handle(events[index].data.ptr, events[index].events);
        now = seconds(CLOCK_MONOTONIC);
        if (units != before || ready)
            progress = now;
        else if (now - progress > PATIENCE)
            fail("nothing came for %.0f s", PATIENCE);
        else if (mode == UDP && now - progress > RESEND)
            for (int index = 0; index < many; index++)
                begin(&clients[index]);
    }
    printf("%llu %.9f %.9f\n", units, now - counted, seconds(cpu) - used);
    return 0;
}
