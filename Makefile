# SPDX-License-Identifier: GPL-2.0-or-later
# `make help` lists the targets. One tree of objects per variant: V=gcc (default), clang, asan, tsan, fuzz.
V ?= gcc
PREFIX ?= /usr/local
SYSCONFDIR ?= /etc
DESTDIR ?=
VERSION := 0.1.0
Q := $(if $(VERBOSE),,@)
comma := ,

CC_gcc := gcc
CC_clang := clang
CC_asan := gcc
CC_tsan := gcc
CC_fuzz := clang
CFLAGS_gcc := -O2 -D_FORTIFY_SOURCE=2 -fstack-protector-strong
CFLAGS_clang := -O2
CFLAGS_asan := -O1 -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all
CFLAGS_tsan := -O1 -fsanitize=thread
CFLAGS_fuzz := -O1 -fno-omit-frame-pointer -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all
CC := $(CC_$(V))
CFLAGS ?= -g
WARN := -Wall -Wextra -Werror -Wshadow -Wmissing-prototypes -Wstrict-prototypes -Wformat=2
PKGS := sqlite3 inih libcap libsystemd libxxhash
override CFLAGS += -std=gnu17 $(WARN) $(CFLAGS_$(V)) -D_GNU_SOURCE -DMAILDEX_VERSION='"$(VERSION)"' -I. -pthread -MMD -MP \
	$(shell pkg-config --cflags $(PKGS) 2>/dev/null)
LIBS = $(shell pkg-config --libs $(PKGS)) -pthread
FUSE_CFLAGS = $(shell pkg-config --cflags fuse3)
FUSE_LIBS = $(shell pkg-config --libs fuse3)
INOTIFY_LIBS := -linotifytools

B := build/$(V)
LIB_SRC := $(wildcard lib/*/*.c)
PROGRAMS := maildexd maildexfs maildexctl maildex-notify
maildexd_SRC := $(wildcard indexer/*.c)
maildexfs_SRC := $(wildcard fs/*.c)
maildexctl_SRC := $(wildcard tools/maildexctl/*.c)
maildex-notify_SRC := $(wildcard tools/maildex-notify/*.c)
UNIT := $(patsubst tests/unit/%.c,$(B)/unit/%,$(wildcard tests/unit/*.c))
FAULTFS_SRC := $(wildcard tests/support/faultfs/*.c) fs/dirops.c
BENCH := $(patsubst tests/bench/%.c,$(B)/bench/%,$(wildcard tests/bench/*.c))
FUZZ := $(patsubst tests/fuzz/%.c,$(B)/fuzz/%,$(filter-out %/replay.c,$(wildcard tests/fuzz/*.c)))
SECONDS_EACH ?= 60
VALGRIND := valgrind -q --leak-check=full --show-leak-kinds=definite --errors-for-leak-kinds=definite --error-exitcode=99
obj = $(patsubst %.c,$(B)/%.o,$(1))
SOURCES := $(LIB_SRC) $(foreach p,$(PROGRAMS),$($(p)_SRC))
# Unit tests may use what is not main() of any program.
UNIT_OBJ := $(call obj,$(filter-out %/main.c,$(SOURCES)))

# Objects of tests are kept too.
.SECONDARY:
.PHONY: all help deps check check-unit check-valgrind check-mount check-servers check-agents check-everyday check-full \
	check-fuzz fuzz fuzzers check-faulty check-sanitized check-tsan lint bench check-nfs bench-nfs demo install uninstall clean
all: $(addprefix $(B)/,$(PROGRAMS))

help:
	@sed -n 's/^## //p' $(firstword $(MAKEFILE_LIST))

## make all             build the four programs under build/gcc (V=clang|asan|tsan: another variant)
## make deps            install with apt what building and testing need
deps:
	tools/dev/deps

$(B)/%.o: %.c | .deps-hint
	@mkdir -p $(@D)
	@echo "  CC $@"
	$(Q)$(CC) $(CFLAGS) $(if $(filter fs/%,$<),$(FUSE_CFLAGS)) -c -o $@ $<
.PHONY: .deps-hint
.deps-hint:
	@pkg-config --exists $(PKGS) fuse3 || { echo "libraries are missing: run 'sudo make deps' first" >&2; exit 1; }

$(B)/libmaildex.a: $(call obj,$(LIB_SRC))
	@rm -f $@
	$(Q)ar rcs $@ $^

define program
$(B)/$(1): $$(call obj,$$($(1)_SRC)) $(B)/libmaildex.a
	@echo "  LD $$@"
	$$(Q)$$(CC) $$(CFLAGS) -o $$@ $$^ $$(if $$(filter maildexfs,$(1)),$$(FUSE_LIBS)) \
		$$(if $$(filter maildexd,$(1)),$$(INOTIFY_LIBS)) $$(LIBS)
endef
$(foreach p,$(PROGRAMS),$(eval $(call program,$(p))))

$(B)/libtested.a: $(UNIT_OBJ)
	@rm -f $@
	$(Q)ar rcs $@ $^
$(B)/unit/%: $(B)/tests/unit/%.o $(B)/libtested.a
	@mkdir -p $(@D)
	@echo "  LD $@"
	$(Q)$(CC) $(CFLAGS) -o $@ $^ $(FUSE_LIBS) $(INOTIFY_LIBS) $(LIBS) -lcmocka
$(B)/bench/%: $(B)/tests/bench/%.o $(B)/libtested.a
	@mkdir -p $(@D)
	@echo "  LD $@"
	$(Q)$(CC) $(CFLAGS) -o $@ $^ $(FUSE_LIBS) $(INOTIFY_LIBS) $(LIBS)
# With libFuzzer's main(), or with one that replays the corpus.
$(B)/fuzz/%: $(B)/tests/fuzz/%.o $(if $(filter fuzz,$(V)),,$(B)/tests/fuzz/replay.o) $(B)/libtested.a
	@mkdir -p $(@D)
	@echo "  LD $@"
	$(Q)$(CC) $(CFLAGS) $(if $(filter fuzz,$(V)),-fsanitize=fuzzer) -o $@ $^ $(FUSE_LIBS) $(INOTIFY_LIBS) $(LIBS)
# A lower tree that misbehaves on order: tests/support/faultfs.py.
$(B)/faultfs: $(call obj,$(FAULTFS_SRC)) $(B)/libmaildex.a
	@echo "  LD $@"
	$(Q)$(CC) $(CFLAGS) -o $@ $^ $(FUSE_LIBS) $(LIBS)
# Preloaded: tests/mount/test_killed_at.py.
$(B)/killat.so: tests/support/killat.c
	@echo "  LD $@"
	$(Q)$(CC) -std=gnu17 -D_GNU_SOURCE -Wall -Wextra -Werror -O2 -fPIC -shared -o $@ $<
$(B)/tests/%.o: tests/%.c | .deps-hint
	@mkdir -p $(@D)
	@echo "  CC $@"
	$(Q)$(CC) $(CFLAGS) $(FUSE_CFLAGS) -c -o $@ $<

## make check           set up, lint, all tests under gcc, unit and mount tests with ASan+UBSan, and with TSan
check: deps
	$(MAKE) lint
	$(MAKE) check-unit check-fuzz check-mount
# Both wait more than they work.
	$(MAKE) -j2 --output-sync=target check-servers check-model
	$(MAKE) check-agents check-everyday
	$(MAKE) check-sanitized
	$(MAKE) check-tsan
## make check-unit      unit tests only (V=asan, V=tsan: another variant)
check-unit: $(UNIT)
	CMOCKA_MESSAGE_OUTPUT=TAP prove -j2 $(if $(VERBOSE),-v) $(UNIT)
## make check-valgrind  unit tests under valgrind: no error, no memory lost
check-valgrind: $(UNIT)
	@command -v valgrind >/dev/null || { echo "valgrind is missing: run 'sudo make deps' first" >&2; exit 1; }
	CMOCKA_MESSAGE_OUTPUT=TAP MAILDEX_POWERCUT_SEEDS=1 prove -j2 $(if $(VERBOSE),-v) --exec '$(VALGRIND)' $(UNIT)
## make check-fuzz      what the fuzzers found so far (tests/fuzz/corpus), replayed
check-fuzz: $(FUZZ)
	tests/fuzz/run replay $(B)/fuzz
## make fuzz            run each fuzzer under libFuzzer for SECONDS_EACH (60); what it finds is left in build/fuzz/found
fuzz:
	@echo 'int LLVMFuzzerTestOneInput(const char *d, long n) { return !d + !n; }' | \
		clang -fsanitize=fuzzer -x c -o /dev/null - 2>/dev/null || { echo "clang or its libFuzzer is missing: run 'sudo make deps' first" >&2; exit 1; }
	$(MAKE) V=fuzz fuzzers
	tests/fuzz/run fuzz build/fuzz/fuzz $(SECONDS_EACH)
fuzzers: $(FUZZ)
## make check-mount     mount tests only: real FUSE, real daemons
MOUNT ?= tests/mount
check-mount: all $(B)/faultfs $(B)/killat.so
	MAILDEX_BUILD=$(B) tests/run $(MOUNT) $(PYTEST)
## make check-servers   real Courier and Dovecot, with and without maildex: the same answers, the same files
## make check-agents    real delivery agents
## make check-everyday  rsync, tar, git, mutt, fio, ... on the mount
# Servers wait more than they work.
check-servers check-agents check-everyday: all
	MAILDEX_BUILD=$(B) tests/run tests/$(@:check-%=%) $(if $(filter check-servers,$@),-n 4) $(PYTEST)
## make check-faulty    the servers' transcripts on a lower filesystem that imitates NFS (tests/faulty: any suite, any of its faults)
check-faulty: all $(B)/faultfs
	MAILDEX_BUILD=$(B) tests/faulty unknown=1,silly=1 tests/servers -m nfs -n 3 $(PYTEST)
## make check-model     a seeded random machine of hosts, silent writers and faults beside an oracle: 10,000 steps (STEPS=, SEED=)
## make soak            for hours: soak-kills soak-flat soak-leaks soak-model (make -k soak: all, whatever fails)
## make soak-kills      kill -9 of either program or both while sessions work: 500 times (KILLS=)
## make soak-flat       1,000,000 operations (OPERATIONS=), and an hour of them (HOUR=3600): descriptors and memory stay flat
## make soak-leaks      a million operations with ASan: LeakSanitizer finds nothing
## make soak-model      check-model, 1,000,000 steps
soak: soak-kills soak-flat soak-leaks soak-model
check-model: STEPS ?= 10000
soak-model: STEPS ?= 1000000
KILLS ?= 500
OPERATIONS ?= 1000000
HOUR ?= 3600
check-model soak-model: all $(B)/faultfs
	MAILDEX_BUILD=$(B) MAILDEX_MODEL_STEPS=$(STEPS) $(if $(SEED),MAILDEX_MODEL_SEED=$(SEED)) tests/run tests/model -n 4 $(PYTEST)
soak-kills: all $(B)/faultfs $(B)/killat.so
	MAILDEX_BUILD=$(B) MAILDEX_KILLS=$(KILLS) tests/run tests/mount/test_kills.py tests/mount/test_killed_at.py $(PYTEST)
soak-flat: all
	MAILDEX_BUILD=$(B) MAILDEX_SOAK_OPS=$(OPERATIONS) MAILDEX_SOAK_S=$(HOUR) tests/run -m soak tests/soak -n 0 $(PYTEST)
soak-leaks:
	$(MAKE) V=asan soak-flat PYTEST='-k operations'
.PHONY: check-model soak soak-model soak-kills soak-flat soak-leaks
## make check-full      tests that take minutes: load
check-full: deps
	$(MAKE) all
	MAILDEX_BUILD=$(B) tests/run -m full tests $(PYTEST)
## make check-sanitized unit and mount tests with ASan+UBSan
check-sanitized:
	$(MAKE) V=asan check-unit check-fuzz check-mount
## make check-tsan      unit tests, and the mount tests in which several threads meet, with TSan (MOUNT=tests/mount: all)
MEET := stress own silent late growth locks lock_waits ring kills hung maildexd with_maildexd inotify serve mount mount_more ctl
check-tsan: MOUNT := $(MEET:%=tests/mount/test_%.py)
check-tsan:
	$(MAKE) V=tsan check-unit check-mount MOUNT="$(MOUNT)"
## make lint            layering, headers, format, static analysis
lint:
	tests/lint/run
## make demo            set up, then the main job on real mail with a real delivery agent and Courier
demo: deps
	$(MAKE) all
	tests/demo/run
## make bench           measure: listings, index, rebuild, renames; side by side with native and bindfs; what storage that hangs
##                      costs others (PARTS="costs hung": some of it)
bench: all $(BENCH) $(B)/faultfs
	MAILDEX_BUILD=$(B) unshare --mount --propagation shared tests/bench/run $(PARTS)
## make check-nfs       tests on a real NFS server and client (v3, v4.2, root squash), in a virtual machine; hours where it is emulated
check-nfs:
	tests/nfs/check
## make bench-nfs       measure: NFS calls of logins, in a virtual machine; under half an hour (FULL=1: everything, hours)
bench-nfs:
	tests/nfs/build
	tests/nfs/bench/image build/nfs/mail.img
	VM_EXPORT=build/nfs/mail.img VM_S=$(if $(FULL),36000,3600) tests/nfs/vm bench$(if $(FULL),$(comma)full=1) lease=90
## make install         to DESTDIR and PREFIX (/usr/local)
## make uninstall
install uninstall: all
	tools/dev/$@ "$(DESTDIR)" "$(PREFIX)" "$(SYSCONFDIR)" "$(B)"
## make clean
clean:
	rm -rf build

-include $(shell find $(B) -type f -name '*.d' 2>/dev/null)
