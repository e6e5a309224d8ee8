/* An echo server: an ordinary Linux program in C, with epoll, but compiled to Wasm.
 *
 *     server PORT LOG
 *
 * It has no C library, so that it can be read from top to bottom.  Before it serves it tries what
 * it should not be able to do, and says what came of that.
 */
#define CALL(name) __attribute__((import_module("wali"), import_name(#name)))

typedef __SIZE_TYPE__ size_t;

/* Linux's calls, as WALI has them: a long is 64 bits, a pointer 32, an error is -errno. */
CALL(SYS_accept4) long accept4(int fd, void *address, unsigned *size, int flags);
CALL(SYS_bind) long bind(int fd, const void *address, unsigned size);
CALL(SYS_close) long close(int fd);
CALL(SYS_epoll_create1) long epoll_create1(int flags);
CALL(SYS_epoll_ctl) long epoll_ctl(int epoll, int how, int fd, void *event);
CALL(SYS_epoll_pwait)
long epoll_pwait(int epoll, void *events, int most, int ms, const void *mask, unsigned size);
CALL(SYS_listen) long listen(int fd, int backlog);
CALL(SYS_open) long open(const char *path, int flags, unsigned mode);
CALL(SYS_read) long read(int fd, void *to, size_t size);
CALL(SYS_setsockopt) long setsockopt(int fd, int level, int name, const void *value, unsigned size);
CALL(SYS_socket) long socket(int domain, int type, int protocol);
CALL(SYS_write) long write(int fd, const void *from, size_t size);

CALL(__init) int wali_init(void);
CALL(__proc_exit) void wali_exit(int status);
CALL(__cl_get_argc) int argument_count(void);
CALL(__cl_copy_argv) int copy_argument(char *to, int index);

enum { O_WRONLY = 1, O_CREAT = 0x40, O_APPEND = 0x400 };
enum { AF_INET = 2, SOCK_STREAM = 1, SOCK_NONBLOCK = 0x800, SOL_SOCKET = 1, SO_REUSEADDR = 2 };
enum { EPOLLIN = 1, EPOLLOUT = 4, EPOLL_CTL_ADD = 1, EPOLL_CTL_MOD = 3, EAGAIN = 11 };
#ifndef CONNECTIONS
#define CONNECTIONS 64
#endif

struct event {
    unsigned events;
    unsigned long data;
} __attribute__((packed));

/* A connection and what of it has not been sent back yet. */
struct connection {
    int fd;
    long held, sent;
    char buffer[16384];
};

static struct connection connections[CONNECTIONS];
static int epoll, listener, log_file, open_connections;

static size_t length(const char *text) {
    size_t n = 0;
    while (text[n])
        n++;
    return n;
}

/* Print some text, a number and more text, in one piece. */
static void say(int fd, const char *before, long value, const char *after) {
    char line[256], digits[24];
    size_t used = 0, n = 0;
    unsigned long rest = value < 0 ? -(unsigned long)value : (unsigned long)value;
    while (*before)
        line[used++] = *before++;
    if (value < 0)
        line[used++] = '-';
    do
        digits[n++] = (char)('0' + rest % 10);
    while (rest /= 10);
    while (n)
        line[used++] = digits[--n];
    while (*after)
        line[used++] = *after++;
    write(fd, line, used);
}

static void watch(int how, int fd, unsigned events, unsigned long data) {
    struct event event = {events, data};
    epoll_ctl(epoll, how, fd, &event);
}

static int serve_at(int port) {
    unsigned char address[16] = {
        AF_INET, 0, (unsigned char)(port >> 8), (unsigned char)port, 127, 0, 0, 1};
    int on = 1, fd = (int)socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    long r = bind(fd, address, sizeof address);
    if (r == 0)
        r = listen(fd, CONNECTIONS);
    if (r < 0)
        close(fd);
    return r < 0 ? (int)r : fd;
}

static void welcome(void) {
    long fd = accept4(listener, 0, 0, SOCK_NONBLOCK);
    for (int i = 0; fd >= 0 && i < CONNECTIONS; i++)
        if (connections[i].fd < 0) {
            connections[i].fd = (int)fd;
            connections[i].held = connections[i].sent = 0;
            watch(EPOLL_CTL_ADD, (int)fd, EPOLLIN, (unsigned long)i);
            open_connections++;
            return;
        }
    if (fd >= 0)
        close((int)fd);
}

/* Send back what came; wait for room where there is none, and for more where all is sent. */
static void echo(unsigned long index) {
    struct connection *c = &connections[index];
    if (c->sent == c->held) {
        c->sent = 0;
        c->held = read(c->fd, c->buffer, sizeof c->buffer);
    }
    while (c->held > c->sent) {
        long r = write(c->fd, c->buffer + c->sent, (size_t)(c->held - c->sent));
        if (r == -EAGAIN) {
            watch(EPOLL_CTL_MOD, c->fd, EPOLLOUT, index);
            return;
        }
        if (r < 0)
            c->held = 0;
        else
            c->sent += r;
    }
    if (c->held > 0 || c->held == -EAGAIN) {
        watch(EPOLL_CTL_MOD, c->fd, EPOLLIN, index);
        return;
    }
    say(log_file, "connection ", (long)index, " ended\n");
    close(c->fd);
    c->fd = -1;
    open_connections--;
}

/* Every connection that ever comes, until the last one of them has gone. */
static void serve(void) {
    struct event events[16];
    do {
        long ready = epoll_pwait(epoll, events, 16, -1, 0, 8);
        for (long i = 0; i < ready; i++)
            if (events[i].data == CONNECTIONS)
                welcome();
            else
                echo(events[i].data);
    } while (open_connections);
}

void _start(void) {
    static char port[4096], path[4096];
    wali_init();
    if (argument_count() != 3)
        wali_exit(2);
    copy_argument(port, 1);
    copy_argument(path, 2);
    int number = 0;
    for (size_t i = 0; i < length(port); i++)
        number = number * 10 + (port[i] - '0');

    say(1, "open /etc/passwd: ", open("/etc/passwd", 0, 0), "\n");
    say(1, "serve at the next port: ", serve_at(number + 1), "\n");

    log_file = (int)open(path, O_WRONLY | O_CREAT | O_APPEND, 0600);
    listener = serve_at(number);
    if (log_file < 0 || listener < 0) {
        say(2, "cannot serve: ", log_file < 0 ? log_file : listener, "\n");
        wali_exit(1);
    }
    epoll = (int)epoll_create1(0);
    for (int i = 0; i < CONNECTIONS; i++)
        connections[i].fd = -1;
    watch(EPOLL_CTL_ADD, listener, EPOLLIN, CONNECTIONS);
    say(1, "serving at ", number, "\n");
    serve();
    wali_exit(0);
}
