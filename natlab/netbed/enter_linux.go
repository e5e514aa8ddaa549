package netbed

import (
	"errors"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strings"
	"syscall"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// inside is set in the environment of the process that runs in namespaces of its
// own.
const inside = "NATLAB_INSIDE"

// Enter runs the program again inside namespaces of its own, and ends this
// process with the same exit code; in the inner process it returns nil, however
// often it is called. Call it before anything else. It returns an
// *[UnavailableError] where namespaces are not to be had.
//
// The inner process has process number 1 of its namespace: when it ends, so do
// all others in it. It ends with this process, even if that is killed. Signals
// that would end this process are passed on to it.
func Enter() error {
	if missing == nil {
		return nil
	}
	if os.Getenv(inside) != "" {
		return settle()
	}
	// Pdeathsig follows the thread that started the child.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	// Before the start, or a signal in between would end us without it.
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGQUIT, syscall.SIGHUP)
	defer signal.Stop(signals)
	child, err := again(os.Geteuid() != 0)
	if errors.Is(err, syscall.EPERM) && os.Geteuid() == 0 {
		// Root of a container, without the rights of a real one.
		child, err = again(true)
	}
	if err != nil {
		return unavailable(err)
	}
	go forward(signals, child.Process)
	err = child.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return unavailable(err)
	}
	os.Exit(exitCode(child.ProcessState))
	return nil
}

// again starts this program in new namespaces, with a user namespace or without.
func again(user bool) (*exec.Cmd, error) {
	cmd := &exec.Cmd{
		Path: "/proc/self/exe", Args: os.Args, Env: append(os.Environ(), inside+"=1"),
		Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr,
		SysProcAttr: &syscall.SysProcAttr{
			Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWPID | unix.CLONE_NEWNS,
			Pdeathsig:  syscall.SIGKILL,
		},
	}
	if user {
		cmd.SysProcAttr.Cloneflags |= unix.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}}
	}
	return cmd, cmd.Start()
}

// forward passes signals on to the inner process, but for the Ctrl-C that the
// terminal has sent to it as well: a second one means 'at once' to many programs.
func forward(signals <-chan os.Signal, inner *os.Process) {
	for s := range signals {
		if s == os.Interrupt && inForeground() {
			continue
		}
		_ = inner.Signal(s)
	}
}

// inForeground reports whether the terminal's signals go to our process group.
func inForeground() bool {
	fd, err := unix.Open("/dev/tty", unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
	if err != nil {
		return false // there is no terminal
	}
	defer func() { _ = unix.Close(fd) }()
	group, err := unix.IoctlGetInt(fd, unix.TIOCGPGRP)
	return err == nil && group == unix.Getpgrp()
}

// exitCode is a process's exit code as a shell would have it.
func exitCode(s *os.ProcessState) int {
	if w, ok := s.Sys().(syscall.WaitStatus); ok && w.Signaled() {
		return 128 + int(w.Signal())
	}
	return s.ExitCode()
}

// Main runs a package's tests inside namespaces of their own. Where these are not
// to be had the tests still run: those that call [Need] skip.
//
// m is the *testing.M; the type keeps package testing out of programs.
func Main(m interface{ Run() int }) {
	if err := Enter(); err != nil {
		missing = err
	}
	os.Exit(m.Run())
}

// missing is why there is no lab in this process.
var missing error = &UnavailableError{
	Missing: "namespace of our own", Err: errors.New("not entered"),
	Hint: "call netbed.Enter first thing in main, or netbed.Main from TestMain",
}

// ownProc says that /proc shows the processes of our namespace and no others.
var ownProc bool

// Need skips a test where there is no lab; t is its testing.TB.
func Need(t interface {
	Helper()
	Skip(args ...any)
},
) {
	t.Helper()
	if missing != nil {
		t.Skip(missing)
	}
}

// settle makes the inner process at home: its own view of processes, and
// loopback.
func settle() error {
	_ = os.Unsetenv(inside)
	// Private, or the mount below would show outside. A system that hides parts
	// of /proc from us refuses the mount: the old view serves, too.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err == nil {
		err = unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "")
		ownProc = err == nil
	}
	lo, err := netlink.LinkByName("lo")
	if err == nil {
		err = netlink.LinkSetUp(lo)
	}
	if err != nil {
		return &UnavailableError{
			Missing: "network namespace", Err: err,
			Hint: "the system let us in but not configure it; run as root",
		}
	}
	missing = nil
	return nil
}

// unavailable says what is in the way.
func unavailable(err error) error {
	e := &UnavailableError{
		Missing: "user and network namespaces", Err: err,
		Hint: "run as root, or on a system that lets users create namespaces",
	}
	read := func(path string) string {
		b, _ := os.ReadFile(path)
		return strings.TrimSpace(string(b))
	}
	switch {
	case read("/proc/sys/kernel/unprivileged_userns_clone") == "0":
		e.Hint = "run as root, or `sysctl kernel.unprivileged_userns_clone=1`"
	case read("/proc/sys/user/max_user_namespaces") == "0":
		e.Hint = "run as root, or `sysctl user.max_user_namespaces=10000`"
	case read("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == "1":
		e.Hint = "run as root, or `sysctl kernel.apparmor_restrict_unprivileged_userns=0`"
	}
	return e
}
