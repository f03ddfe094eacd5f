// The oracle of the tests: libseccomp's filters, installed filters of running processes. Never linked into the product.
//   numbers ARCH        names on stdin, "NAME NUMBER" out (-1: unknown name, below: not on this architecture)
//   filter              profile on stdin (see below), the program's bytes in the target's byte order out
//   installed PID       the last filter that PID has loaded, as bytes
//   cost [FILE]         nanoseconds for a getppid under the filter in FILE, least of 20 runs
// A profile: "default ACTION", "arch NAME"..., "rule ACTION NAME COUNT {INDEX OP A B}...", one a line; the first arch replaces
// the native one.
#define _GNU_SOURCE
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifndef PTRACE_SECCOMP_GET_FILTER
#define PTRACE_SECCOMP_GET_FILTER 0x420c
#endif

static int fail(const char *what, int error) {
    fprintf(stderr, "%s: %s\n", what, strerror(error < 0 ? -error : error));
    return 1;
}

static int numbers(const char *arch) {
    uint32_t token = seccomp_arch_resolve_name(arch);
    char name[256];
    while (scanf("%255s", name) == 1)
        printf("%s %d\n", name, seccomp_syscall_resolve_name_arch(token, name));
    return 0;
}

static int rule(scmp_filter_ctx ctx) {
    char name[256];
    unsigned action, count;
    struct scmp_arg_cmp args[6];
    if (scanf("%u %255s %u", &action, name, &count) != 3 || count > 6)
        return -EINVAL;
    for (unsigned i = 0; i < count; i++) {
        unsigned index, op;
        unsigned long long a, b;
        if (scanf("%u %u %llu %llu", &index, &op, &a, &b) != 4)
            return -EINVAL;
        args[i] = (struct scmp_arg_cmp){index, (enum scmp_compare)op, a, b};
    }
    int nr = seccomp_syscall_resolve_name(name);
    if (nr == __NR_SCMP_ERROR)
        return 0;
    return seccomp_rule_add_array(ctx, action, nr, count, args);
}

static int filter(void) {
    char word[64];
    unsigned action;
    int first = 1, rules = 0;
    // libseccomp takes minutes for some sets of comparisons; such a profile proves nothing.
    alarm(2);
    if (scanf("%63s %u", word, &action) != 2)
        return fail("default", EINVAL);
    scmp_filter_ctx ctx = seccomp_init(action);
    if (!ctx)
        return fail("seccomp_init", EINVAL);
    while (scanf("%63s", word) == 1) {
        int error;
        if (!strcmp(word, "arch")) {
            if (scanf("%63s", word) != 1)
                return fail("arch", EINVAL);
            uint32_t token = seccomp_arch_resolve_name(word);
            if (first && token != seccomp_arch_native() && (error = seccomp_arch_remove(ctx, SCMP_ARCH_NATIVE)))
                return fail("seccomp_arch_remove", error);
            first = 0;
            error = seccomp_arch_add(ctx, token);
            if (error && error != -EEXIST)
                return fail("seccomp_arch_add", error);
            continue;
        }
        error = rule(ctx);
        rules++;
        if (error)
            return fail("seccomp_rule_add", error);
    }
    if (rules > 8)
        seccomp_attr_set(ctx, SCMP_FLTATR_CTL_OPTIMIZE, 2);
    int error = seccomp_export_bpf(ctx, 1);
    seccomp_release(ctx);
    return error ? fail("seccomp_export_bpf", error) : 0;
}

static int installed(pid_t pid) {
    static struct sock_filter program[4096];
    alarm(10);
    if (ptrace(PTRACE_SEIZE, pid, 0, 0) || ptrace(PTRACE_INTERRUPT, pid, 0, 0))
        return fail("ptrace", errno);
    int status;
    waitpid(pid, &status, __WALL);
    long count = ptrace(PTRACE_SECCOMP_GET_FILTER, pid, 0, program);
    int error = errno;
    ptrace(PTRACE_DETACH, pid, 0, 0);
    if (count < 0)
        return fail("PTRACE_SECCOMP_GET_FILTER", error);
    return fwrite(program, sizeof(program[0]), count, stdout) == (size_t)count ? 0 : 1;
}

static double nanoseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1e9 + now.tv_nsec;
}

static int cost(const char *path) {
    static struct sock_filter program[4096];
    if (path) {
        FILE *file = fopen(path, "r");
        if (!file)
            return fail(path, errno);
        struct sock_fprog prog = {fread(program, sizeof(program[0]), 4096, file), program};
        prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
        if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_SPEC_ALLOW, &prog))
            return fail("seccomp", errno);
    }
    // Two calls: one that every profile allows, one whose arguments the default profile compares.
    double allowed = 1e9, compared = 1e9;
    for (int run = 0; run < 20; run++) {
        double start = nanoseconds();
        for (int i = 0; i < 200000; i++)
            syscall(SYS_getppid);
        double middle = nanoseconds();
        for (int i = 0; i < 200000; i++)
            syscall(SYS_personality, 0xffffffff);
        double end = nanoseconds();
        allowed = middle - start < allowed ? middle - start : allowed;
        compared = end - middle < compared ? end - middle : compared;
    }
    printf("%.1f %.1f\n", allowed / 200000, compared / 200000);
    return 0;
}

int main(int argc, char **argv) {
    if (argc == 3 && !strcmp(argv[1], "numbers"))
        return numbers(argv[2]);
    if (argc == 2 && !strcmp(argv[1], "filter"))
        return filter();
    if (argc == 3 && !strcmp(argv[1], "installed"))
        return installed(atoi(argv[2]));
    if (argc >= 2 && !strcmp(argv[1], "cost"))
        return cost(argc > 2 ? argv[2] : NULL);
    return fail("usage", EINVAL);
}
