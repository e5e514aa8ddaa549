package netbed

import (
	"errors"
	"fmt"
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

// UnavailableError says why there is no lab on this machine, and what to do.
type UnavailableError struct {
	Missing string
	Hint    string
	Err     error
}

// Error implements error.
func (e *UnavailableError) Error() string {
	return fmt.Sprintf("no network lab here: %s: %v; %s", e.Missing, e.Err, e.Hint)
}

// Unwrap is what the system said.
func (e *UnavailableError) Unwrap() error { return e.Err }

// Enter runs the program again inside namespaces of its own, and ends this
// process with the same exit code; in the inner process it returns nil. Call it
// before anything else. It returns an *UnavailableError where namespaces are not
// to be had.
func Enter() error {
	if os.Getenv(inside) != "" {
		return settle()
	}
	// Pdeathsig follows the thread that started the child.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), inside+"=1")
	attr := &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWPID | unix.CLONE_NEWNS,
		Pdeathsig:  syscall.SIGKILL,
	}
	if os.Geteuid() != 0 {
		attr.Cloneflags |= unix.CLONE_NEWUSER
		attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	cmd.SysProcAttr = attr
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGQUIT, syscall.SIGHUP)
	defer signal.Stop(signals)
	if err := cmd.Start(); err != nil {
		return unavailable(err)
	}
	go func() {
		for s := range signals {
			// The terminal sends Ctrl-C to both; a second one does no harm.
			_ = cmd.Process.Signal(s)
		}
	}()
	err := cmd.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return unavailable(err)
	}
	code := cmd.ProcessState.ExitCode()
	if code < 0 {
		code = 128 + int(cmd.ProcessState.Sys().(syscall.WaitStatus).Signal())
	}
	os.Exit(code)
	return nil
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
		_ = unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "")
	}
	lo, err := netlink.LinkByName("lo")
	if err == nil {
		err = netlink.LinkSetUp(lo)
	}
	if err != nil {
		return &UnavailableError{"network namespace", "the system let us in but not configure it; try as root", err}
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
