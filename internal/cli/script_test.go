package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"bodkin/internal/testmain"
	"bodkin/peer"
	"bodkin/portmap/portmaptest"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestMain lets the test program be bodkin, for scripts that run it.
func TestMain(m *testing.M) {
	if strings.HasSuffix(strings.TrimSuffix(os.Args[0], ".exe"), ".test") {
		testmain.MoreAtOnce()
	}
	testscript.Main(m, map[string]func(){
		"bodkin": func() { os.Exit(Main(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) },
	})
}

// patience is how long a script waits for what must come. It is no measurement.
const patience = time.Minute

// TestScripts runs testdata/*.txt: the real program, in processes of its own, over
// loopback. Beside testscript's commands there are:
//
//	start NAME bodkin ARG...  runs it beside the script; NAME names it below
//	await NAME out|err RE [VAR]
//	                          waits until RE stands in what it has written, and
//	                          keeps the (first group of the) match in VAR
//	feed NAME [TEXT]          writes a line to its standard input; without TEXT
//	                          ends that
//	signal NAME INT|TERM|HUP|KILL
//	                          sends it a signal
//	ended NAME CODE           waits for its end; what it wrote is then stdout
//	                          and stderr
//	unread NAME               closes the reading end of its standard output
//	code CODE bodkin ARG...   runs it and compares its exit code
//	serve                     starts a server, named serve, and keeps its URL in
//	                          BODKIN_SERVER
//	listen NAME ARG...        starts bodkin listen with the key NAME.key, waits
//	                          until it can be reached, and keeps its ID in NAME
//	echoes tcp|udp VAR        sends back what comes to a port of loopback, and keeps
//	                          the port in VAR
//	talk tcp|udp|unix ADDRESS TEXT
//	                          connects, says TEXT, and prints what comes back
//	grow FILE BYTES           writes a file of that size, which nothing can pack
//	sockets N                 compares the number of control sockets
//	router [SAYS]             starts a router that maps ports, and keeps its address
//	                          in ROUTER; it says that it is SAYS outside
//	fill FROM TO              copies a file with the values of $VARIABLES in it
//	systemd                   takes what services tell systemd, as the output of a
//	                          program that is named systemd; with a watchdog
//
// A script that ends has to leave neither a process nor a socket.
func TestScripts(t *testing.T) {
	// Where these tests run under nohup, the programs that they start still take
	// SIGHUP: a signal that is handled here is theirs to take.
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	t.Cleanup(func() { signal.Stop(hangups) })
	t.Parallel()
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup:               setup,
		Condition:           condition,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"start": cmdStart, "await": cmdAwait, "feed": cmdFeed, "signal": cmdSignal, "ended": cmdEnded,
			"unread": cmdUnread, "code": cmdCode, "serve": cmdServe, "listen": cmdListen, "sockets": cmdSockets,
			"router": cmdRouter, "echoes": cmdEchoes, "talk": cmdTalk, "fill": cmdFill, "grow": cmdGrow, "systemd": cmdSystemd,
		},
	})
}

func condition(name string) (bool, error) {
	switch name {
	case "root":
		return os.Getuid() == 0, nil
	case "pty":
		f, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
		if err == nil {
			_ = f.Close()
		}
		return err == nil && runtime.GOOS == "linux", nil
	case "userns":
		return runs("unshare", "--user", "--map-root-user", "--mount", "true"), nil
	case "sshd":
		return sshd() != "" && runs("ssh", "-V"), nil
	}
	return false, fmt.Errorf("no condition %q", name)
}

// sshd is the path of the program, if it can run here. It wants to be called by
// an absolute one.
func sshd() string {
	path, err := exec.LookPath("sshd")
	if err != nil {
		path, err = exec.LookPath("/usr/sbin/sshd")
	}
	_, missing := os.Stat("/run/sshd")
	if err != nil || os.Getuid() == 0 && missing != nil && !runs("unshare", "-m", "mount", "-t", "tmpfs", "none", "/run") {
		return ""
	}
	return path
}

func runs(name string, args ...string) bool {
	return exec.Command(name, args...).Run() == nil //nolint:noctx // it ends at once
}

func cmdSystemd(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 0 {
		ts.Fatalf("usage: systemd")
	}
	s := of(ts)
	at := filepath.Join(filepath.Dir(s.sockets), "notify")
	c, err := new(net.ListenConfig).ListenPacket(context.Background(), "unixgram", at)
	ts.Check(err)
	ts.Defer(func() { _ = c.Close() })
	p := &program{done: make(chan struct{}), in: nowhere{}}
	close(p.done)
	go func() {
		buf := make([]byte, 1<<12)
		for {
			n, _, err := c.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = fmt.Fprintf(&p.out, "%s\n", buf[:n])
		}
	}()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.programs["systemd"] = p
	ts.Setenv("NOTIFY_SOCKET", at)
	ts.Setenv("WATCHDOG_USEC", "30000")
}

// nowhere is an input that nobody reads.
type nowhere struct{}

func (nowhere) Write(b []byte) (int, error) { return len(b), nil }
func (nowhere) Close() error                { return nil }

func cmdFill(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: fill FROM TO")
	}
	text := os.Expand(ts.ReadFile(args[0]), ts.Getenv)
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), []byte(text), 0o600))
}

// cmdRouter starts a router on loopback. Only Linux has all of 127.0.0.0/8 there.
func cmdRouter(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) > 1 {
		ts.Fatalf("usage: router [SAYS]")
	}
	o := portmaptest.Options{Host: netip.MustParseAddr("127.0.0.1"), External: netip.MustParseAddr("127.0.0.1")}
	if len(args) == 1 {
		o.External = netip.MustParseAddr(args[0])
	}
	for tries := 0; ; tries++ {
		o.Inside = netip.AddrFrom4([4]byte{127, 77, byte(rand.N(256)), byte(1 + rand.N(254))})
		err := startRouter(ts, o)
		if err == nil {
			break
		}
		if tries == 10 {
			ts.Fatalf("router: %v", err)
		}
	}
	ts.Setenv("ROUTER", o.Inside.String())
}

func startRouter(ts *testscript.TestScript, o portmaptest.Options) (err error) {
	var l net.ListenConfig
	var open []io.Closer
	defer func() {
		for _, c := range open {
			if err != nil {
				_ = c.Close()
			} else {
				ts.Defer(func() { _ = c.Close() })
			}
		}
	}()
	at := func(port uint16) string { return netip.AddrPortFrom(o.Inside, port).String() }
	ask, err := l.ListenPacket(context.Background(), "udp4", at(5351))
	if err != nil {
		return err
	}
	open = append(open, ask)
	search, err := l.ListenPacket(context.Background(), "udp4", at(1900))
	if err != nil {
		return err
	}
	open = append(open, search)
	web, err := l.Listen(context.Background(), "tcp4", at(49152))
	if err != nil {
		return err
	}
	open = append(open, web)
	r := portmaptest.NewRouter(o)
	go func() { _ = r.Serve(ask) }()
	go func() { _ = r.ServeSearch(search) }()
	go func() { _ = http.Serve(web, r) }() //nolint:gosec // a test
	return nil
}

type scriptKey struct{}

// script is what a script has running.
type script struct {
	mu       sync.Mutex
	programs map[string]*program
	sockets  string // the folder of the control sockets
}

func of(ts *testscript.TestScript) *script { return ts.Value(scriptKey{}).(*script) }

func setup(env *testscript.Env) error {
	// The path of a socket must be short, which that of a test is not.
	dir, err := os.MkdirTemp("", "bk")
	if err != nil {
		return err
	}
	s := &script{programs: make(map[string]*program), sockets: filepath.Join(dir, "bodkin")}
	env.Values[scriptKey{}] = s
	env.Setenv("XDG_RUNTIME_DIR", dir)
	env.Setenv("XDG_CONFIG_HOME", filepath.Join(env.WorkDir, "config"))
	env.Setenv("SSHD", sshd())
	env.Setenv("LONG", strings.Repeat("x", 256))
	env.Setenv("SOMEBODY", peer.NewKey([32]byte{1}).ID().String())
	for _, v := range os.Environ() {
		if name, _, _ := strings.Cut(v, "="); strings.HasPrefix(name, "BODKIN_") {
			env.Setenv(name, "")
		}
	}
	t := env.T().(interface {
		testscript.T
		Errorf(string, ...any)
	})
	env.Defer(func() {
		defer func() { _ = os.RemoveAll(dir) }()
		for _, err := range s.end() {
			t.Errorf("%v", err)
		}
	})
	return nil
}

// end interrupts what still runs, and says what is left.
func (s *script) end() (errs []error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	killed := false // and left its socket
	for name, p := range s.programs {
		killed = killed || p.killed
		if !p.over() {
			_ = p.cmd.Process.Signal(os.Interrupt)
		}
		if err := p.wait(); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", name, err))
		}
		p.close()
	}
	left, err := os.ReadDir(s.sockets)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		errs = append(errs, err)
	}
	if len(left) > 0 && !killed {
		errs = append(errs, fmt.Errorf("sockets are left: %v", left))
	}
	return errs
}

func cmdStart(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: start NAME PROGRAM ARG...")
	}
	of(ts).start(ts, args[0], args[1:])
}

func cmdAwait(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 3 || len(args) > 4 {
		ts.Fatalf("usage: await NAME out|err RE [VAR]")
	}
	p := of(ts).program(ts, args[0])
	from := map[string]*watched{"out": &p.out, "err": &p.err}[args[1]]
	re, err := regexp.Compile("(?m)" + args[2])
	ts.Check(err)
	match, err := from.find(re)
	if err != nil {
		ts.Fatalf("%q: %v; %s wrote %q and %q", args[2], err, args[0], p.out.String(), p.err.String())
	}
	if len(args) == 4 {
		ts.Setenv(args[3], match[len(match)-1])
	}
}

func cmdFeed(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 {
		ts.Fatalf("usage: feed NAME [TEXT]")
	}
	p := of(ts).program(ts, args[0])
	if len(args) == 1 {
		ts.Check(p.in.Close())
		return
	}
	_, err := io.WriteString(p.in, strings.Join(args[1:], " ")+"\n")
	ts.Check(err)
}

func cmdSignal(ts *testscript.TestScript, neg bool, args []string) {
	signals := map[string]os.Signal{"INT": os.Interrupt, "TERM": syscall.SIGTERM, "HUP": syscall.SIGHUP, "KILL": os.Kill}
	if neg || len(args) != 2 || signals[args[1]] == nil {
		ts.Fatalf("usage: signal NAME INT|TERM|HUP|KILL")
	}
	p := of(ts).program(ts, args[0])
	p.killed = args[1] == "KILL"
	ts.Check(p.cmd.Process.Signal(signals[args[1]]))
}

func cmdEnded(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: ended NAME CODE")
	}
	p := of(ts).program(ts, args[0])
	ts.Check(p.wait())
	_, _ = io.WriteString(ts.Stdout(), p.out.String())
	_, _ = io.WriteString(ts.Stderr(), p.err.String())
	if got := p.cmd.ProcessState.ExitCode(); strconv.Itoa(got) != args[1] {
		ts.Fatalf("%s ended with %d instead of %s; it wrote %q and %q", args[0], got, args[1], p.out.String(), p.err.String())
	}
}

func cmdUnread(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: unread NAME")
	}
	ts.Check(of(ts).program(ts, args[0]).pipe.Close())
}

func cmdCode(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: code CODE PROGRAM ARG...")
	}
	err := ts.Exec(args[1], args[2:]...)
	got := 0
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if strconv.Itoa(got) != args[0] {
		ts.Fatalf("ended with %d instead of %s", got, args[0])
	}
}

func cmdServe(ts *testscript.TestScript, _ bool, args []string) {
	of(ts).start(ts, "serve", append([]string{"bodkin", "serve", "--listen", "127.0.0.1:0", "--key", "server.key"}, args...))
	cmdAwait(ts, false, []string{"serve", "out", `^bodkin://.*$`, "BODKIN_SERVER"})
}

func cmdListen(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) < 1 {
		ts.Fatalf("usage: listen NAME ARG...")
	}
	name := args[0]
	of(ts).start(ts, name, append([]string{"bodkin", "listen", "--key", name + ".key"}, args[1:]...))
	cmdAwait(ts, false, []string{name, "err", `^peer ID: (\w+)$`, name})
	cmdAwait(ts, false, []string{name, "err", `^connect with: `})
}

func cmdGrow(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: grow FILE BYTES")
	}
	n, err := strconv.Atoi(args[1])
	ts.Check(err)
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{byte(n), byte(len(args[0]))}).Read(b)
	ts.Check(os.MkdirAll(filepath.Dir(ts.MkAbs(args[0])), 0o755))
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), b, 0o644))
}

func cmdSockets(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: sockets N")
	}
	found, err := os.ReadDir(of(ts).sockets)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		ts.Check(err)
	}
	if strconv.Itoa(len(found)) != args[0] {
		ts.Fatalf("%d sockets instead of %s: %v", len(found), args[0], found)
	}
}
