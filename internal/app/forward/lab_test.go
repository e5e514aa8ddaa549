package forward_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"bodkin"
	"bodkin/internal/cli"
	"bodkin/natlab"
	"bodkin/natlab/netbed"
)

// beBodkin makes the test program be bodkin.
const beBodkin = "FORWARD_TEST_BODKIN"

func TestMain(m *testing.M) {
	if os.Getenv(beBodkin) != "" {
		os.Exit(cli.Main(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
	}
	netbed.Main(m)
}

// homes is two homes behind Linux NATs, with the real program on a host in each.
type homes struct {
	*netbed.Lab
	t    *testing.T
	dir  string
	self string
	url  string
}

// twoHomes is all of Linux: its network and the links to it are the kernel's alone.
func twoHomes() natlab.Topology {
	return natlab.Topology{
		Boxes: []natlab.Box{
			{Name: "net", LAN: netip.MustParsePrefix("100.64.0.0/16")},
			{Name: "home-a", Behind: "net", LAN: netip.MustParsePrefix("192.168.1.0/24")},
			{Name: "home-b", Behind: "net", LAN: netip.MustParsePrefix("192.168.2.0/24")},
		},
		Hosts: []natlab.Host{
			{Name: "server", Behind: "net"}, {Name: "a", Behind: "home-a"}, {Name: "b", Behind: "home-b"},
		},
	}
}

func startHomes(t *testing.T) *homes {
	t.Helper()
	netbed.Need(t)
	l, err := netbed.Start(t.Context(), twoHomes())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	// The path of a control socket must be short.
	dir, err := os.MkdirTemp("", "bk") //nolint:usetesting // its path would be too long
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	h := &homes{Lab: l, t: t, dir: dir, self: self}
	h.url = h.bodkin("server", "serve", "--listen", h.Host("server").Addr().String()+":3478").await(`bodkin://\S+`)
	return h
}

// running is a program on a host, and what it has written.
type running struct {
	t      *testing.T
	cmd    *exec.Cmd
	mu     sync.Mutex
	text   bytes.Buffer
	change chan struct{}
	done   chan struct{}
}

// Write implements [io.Writer].
func (r *running) Write(b []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	close(r.change)
	r.change = make(chan struct{})
	return r.text.Write(b)
}

func (r *running) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.String()
}

// await waits until the program has written what matches, and returns the last group
// of it.
func (r *running) await(re string) string {
	r.t.Helper()
	late := time.After(patience)
	for {
		r.mu.Lock()
		match, change := regexp.MustCompile("(?m)"+re).FindStringSubmatch(r.text.String()), r.change
		r.mu.Unlock()
		if match != nil {
			return match[len(match)-1]
		}
		select {
		case <-change:
		case <-r.done:
			r.t.Fatalf("%s ended; it wrote %s", r.cmd.Args, r)
		case <-late:
			r.t.Fatalf("%s has not written %q, but %s", r.cmd.Args, re, r)
		}
	}
}

// start runs a program on a host until the test ends.
func (h *homes) start(t *testing.T, host string, env []string, args ...string) *running {
	t.Helper()
	r := &running{t: t, cmd: exec.Command(args[0], args[1:]...), change: make(chan struct{}), done: make(chan struct{})} //nolint:noctx // killed below
	r.cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + h.dir}, env...)
	r.cmd.Stdout, r.cmd.Stderr = r, r
	r.cmd.WaitDelay = time.Second
	if err := h.Host(host).Start(r.cmd); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(r.done)
		_ = r.cmd.Wait()
	}()
	t.Cleanup(func() {
		_ = r.cmd.Process.Kill()
		<-r.done
	})
	return r
}

// environment is that of bodkin on a host.
func (h *homes) environment(host string) []string {
	folder := filepath.Join(h.dir, host)
	_ = os.MkdirAll(folder, 0o700)
	return []string{beBodkin + "=1", "BODKIN_SERVER=" + h.url, "XDG_CONFIG_HOME=" + folder, "XDG_RUNTIME_DIR=" + folder}
}

// bodkin runs bodkin on a host until the test ends.
func (h *homes) bodkin(host string, args ...string) *running {
	h.t.Helper()
	return h.start(h.t, host, h.environment(host), append([]string{h.self}, args...)...)
}

// id is who bodkin is on a host.
func (h *homes) id(host string) string {
	h.t.Helper()
	return h.bodkin(host, "id").await(`^[a-z2-7]{52}$`)
}

// direct waits until the two homes have a hole between them.
func (h *homes) direct(id string) {
	h.t.Helper()
	h.bodkin("a", "ping", "--until-direct", id).await(`by udp from`)
}

func need(t *testing.T, programs ...string) {
	t.Helper()
	for _, p := range programs {
		if found(p) == "" {
			t.Skipf("%s is not installed", p)
		}
	}
}

// found is where a program is: games and daemons are not in everybody's path.
func found(program string) string {
	for _, name := range []string{program, "/usr/games/" + program, "/usr/sbin/" + program} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	return ""
}

// What people do with it, between two homes behind Linux NATs: their own programs,
// which know nothing of ours.
func TestProgramsOfTwoHomes(t *testing.T) {
	t.Parallel()
	h := startHomes(t)
	a, b := h.id("a"), h.id("b")
	h.bodkin("b", "serve-port", "--peer", a, "2222", "8000", "2342/udp", "--reverse", "8001").await(`^ready`)
	up := h.bodkin("a", "forward", "2200", b, "2222", "8000", b, "8000", "2342", b, "2342/udp")
	for _, to := range []string{"2222", "8000", "2342/udp"} {
		up.await(`^ready: peer \w+ lets us reach localhost:` + to + `$`)
	}
	h.direct(b)
	t.Run("ssh", func(t *testing.T) {
		t.Parallel()
		testSSH(t, h, b)
	})
	t.Run("download", func(t *testing.T) {
		t.Parallel()
		testDownload(t, h)
	})
	t.Run("game", func(t *testing.T) {
		t.Parallel()
		testGame(t, h)
	})
}

// testSSH uses Debian's ssh and sshd through a forward, and through bodkin as its
// ProxyCommand.
func testSSH(t *testing.T, h *homes, b string) {
	t.Helper()
	need(t, "sshd", "ssh", "ssh-keygen", "unshare")
	for _, key := range []string{"host", "user"} {
		if out, err := exec.CommandContext(t.Context(), "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", filepath.Join(h.dir, key)).CombinedOutput(); err != nil {
			t.Fatalf("ssh-keygen: %v: %s", err, out)
		}
	}
	login := startSSHD(t, h)
	ssh := func(host string, more ...string) []string {
		return append([]string{
			"ssh", "-F", "none", "-i", filepath.Join(h.dir, "user"), "-o", "IdentitiesOnly=yes",
			"-o", "StrictHostKeyChecking=accept-new", "-o", "UserKnownHostsFile=" + filepath.Join(h.dir, "known_hosts-"+host),
			"-o", "LogLevel=ERROR",
		}, append(more, login+"@"+host, "read line; echo $line; head -c 3000000 /dev/zero | sha256sum; exit 7")...)
	}
	want := fmt.Sprintf("hello\n%x  -\n", sha256.Sum256(make([]byte, 3_000_000)))
	for name, args := range map[string][]string{
		"through the forward": ssh("127.0.0.1", "-p", "2200"),
		"as ProxyCommand":     ssh("home", "-o", "ProxyCommand="+h.self+" forward - "+b+" localhost:2222"),
	} {
		cmd := exec.CommandContext(t.Context(), args[0], args[1:]...)
		cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + h.dir}, h.environment("a")...)
		cmd.Stdin = strings.NewReader("hello\n")
		var out, errs bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &errs
		err := h.Host("a").Start(cmd)
		if err == nil {
			err = cmd.Wait()
		}
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != 7 || out.String() != want {
			t.Errorf("ssh %s: %v; it printed %q and %q", name, err, out.String(), errs.String())
		}
	}
}

// startSSHD runs sshd in home B, and returns who may log in. As an ordinary user it
// has to be that user's in a namespace where root is one too.
func startSSHD(t *testing.T, h *homes) (login string) {
	t.Helper()
	args := []string{
		found("sshd"), "-D", "-e", "-f", "/dev/null", "-p", "2222", "-o", "ListenAddress=127.0.0.1", "-o", "HostKey=" + filepath.Join(h.dir, "host"),
		"-o", "AuthorizedKeysFile=" + filepath.Join(h.dir, "user.pub"), "-o", "StrictModes=no", "-o", "PidFile=none",
		"-o", "PasswordAuthentication=no", "-o", "PermitRootLogin=prohibit-password",
	}
	uid, gid := outside(t, "uid"), outside(t, "gid")
	who, err := user.LookupId(uid)
	if err != nil {
		t.Fatal(err)
	}
	if uid == "0" {
		// It insists on a folder that belongs to the system's own.
		args = append([]string{"unshare", "-m", "sh", "-c", "mount -t tmpfs none /run && mkdir /run/sshd && exec \"$@\"", "-"}, args...)
	} else {
		args = append([]string{"unshare", "--user", "--map-user=" + uid, "--map-group=" + gid}, args...)
	}
	h.start(t, "b", nil, args...).await(`Server listening on 127.0.0.1 port 2222`)
	return who.Username
}

// outside is which user, or group, root of this namespace is outside of it.
func outside(t *testing.T, kind string) string {
	t.Helper()
	m, err := os.ReadFile("/proc/self/" + kind + "_map")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Fields(string(m))[1]
}

// downloadSize is how much testDownload moves, in bytes; BODKIN_TEST_DOWNLOAD says
// otherwise.
const downloadSize = 64 << 20

// testDownload gets a file by HTTP through a forward, whole.
func testDownload(t *testing.T, h *homes) {
	t.Helper()
	size := downloadSize
	if text := os.Getenv("BODKIN_TEST_DOWNLOAD"); text != "" {
		var err error
		if size, err = strconv.Atoi(text); err != nil {
			t.Fatal(err)
		}
	}
	l, err := h.Host("b").Listen(t.Context(), "tcp4", netip.MustParseAddrPort("127.0.0.1:8000"))
	if err != nil {
		t.Fatal(err)
	}
	sent := make(chan []byte, 1)
	web := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { //nolint:gosec // a test
		w.Header().Set("Content-Length", strconv.Itoa(size))
		sum := sha256.New()
		_, _ = io.CopyN(io.MultiWriter(w, sum), noise(), int64(size))
		sent <- sum.Sum(nil)
	})}
	var wg sync.WaitGroup
	wg.Go(func() { _ = web.Serve(l) })
	defer wg.Wait()
	defer func() { _ = web.Close() }()
	client := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return h.Host("a").Dial(ctx, network+"4", netip.MustParseAddrPort("127.0.0.1:8000"))
	}, DisableKeepAlives: true}}
	begin := time.Now()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://home/file", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	sum := sha256.New()
	n, err := io.Copy(sum, resp.Body)
	if err != nil || n != int64(size) || !bytes.Equal(sum.Sum(nil), <-sent) {
		t.Fatalf("%d of %d bytes, %v", n, size, err)
	}
	took := time.Since(begin)
	t.Logf("%d bytes in %v: %.0f Mbit/s", n, took, float64(n)*8/1e6/took.Seconds())
}

// noise is bytes without an end, which nothing along the way can make up.
func noise() io.Reader { return rand.NewChaCha8([32]byte{7}) }

// testGame has two people of home A play on a server of home B, which sees them
// apart.
func testGame(t *testing.T, h *homes) {
	t.Helper()
	need(t, "chocolate-doom", "chocolate-server")
	const wad = "/usr/share/games/doom/freedoom1.wad"
	if _, err := os.Stat(wad); err != nil {
		t.Skipf("freedoom is not installed: %v", err)
	}
	headless := []string{"SDL_VIDEODRIVER=dummy", "SDL_AUDIODRIVER=dummy"}
	h.start(t, "b", nil, found("chocolate-server"), "-privateserver", "-port", "2342")
	for _, player := range []string{"one", "two"} {
		folder := filepath.Join(h.dir, player)
		if err := os.Mkdir(folder, 0o700); err != nil {
			t.Fatal(err)
		}
		h.start(t, "a", append(headless, "HOME="+folder), found("chocolate-doom"), "-iwad", wad, "-nosound",
			"-connect", "127.0.0.1:2342", "-nodes", "2")
	}
	// A third flow asks the server, as a list of servers would.
	playing := regexp.MustCompile(`2/\d+ .*\(game running\)`)
	for {
		query := h.start(t, "a", headless, found("chocolate-doom"), "-query", "127.0.0.1:2342")
		select {
		case <-query.done:
		case <-time.After(patience):
			t.Fatalf("a query did not end: %s", query)
		}
		if playing.MatchString(query.String()) {
			break
		}
		if t.Context().Err() != nil {
			t.Fatalf("nobody plays: %s", query)
		}
	}
	if ports := portsTo(t, h, 2342); len(ports) < 2 {
		t.Errorf("the server sees its players at the ports %v", ports)
	} else {
		t.Logf("the server sees its players at the ports %v", ports)
	}
}

// portsTo are the ports on host b from which something sends to a UDP port there.
func portsTo(t *testing.T, h *homes, to uint16) (ports []uint64) {
	t.Helper()
	var table []byte
	err := h.Host("b").Do(func() (err error) {
		table, err = os.ReadFile("/proc/thread-self/net/udp")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	loopback := netip.MustParseAddr("127.0.0.1").As4()
	remote := fmt.Sprintf("%08X:%04X", binary.NativeEndian.Uint32(loopback[:]), to)
	for line := range strings.Lines(string(table)) {
		f := strings.Fields(line)
		if len(f) > 2 && f[2] == remote {
			_, port, _ := strings.Cut(f[1], ":")
			n, err := strconv.ParseUint(port, 16, 16)
			if err != nil {
				t.Fatal(err)
			}
			ports = append(ports, n)
		}
	}
	return ports
}

// A flow stays what it is while its packets change their way: the target sees the same
// port, over the hole, over the relay, and over the hole again.
func TestFlowSurvivesChangesOfRoute(t *testing.T) {
	t.Parallel()
	netbed.Need(t)
	l, err := netbed.Start(t.Context(), natlab.TwoHomes(natlab.Options{DelayA: 5 * time.Millisecond, DelayB: 5 * time.Millisecond}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	w := newWorldOn(t, func(name string) bodkin.Network { return l.Host(name) }, netip.AddrPortFrom(l.Host("server").Addr(), 3478))
	port := udpTarget(t)
	w.serve(port + "/udp")
	at, _ := w.forward("0", port+"/udp")
	c := dialUDP(t, at)
	// turned does something that moves traffic to a direct route, or away from it.
	turned := func(direct bool, do func()) {
		t.Helper()
		events := w.a.Events(w.ctx)
		do()
		for e := range events {
			if e.Kind == bodkin.EventSwitched && e.Route.Direct() == direct {
				return
			}
		}
		t.Fatalf("traffic has not switched: %v", w.ctx.Err())
	}
	var seen string
	turned(true, func() { seen = string(ask(t, c, []byte("?"))) })
	var unblock func()
	turned(false, func() { unblock = l.BlockBetween(l.Box("home-a").Addr(), l.Box("home-b").Addr()) })
	if now := string(ask(t, c, []byte("?"))); now != seen {
		t.Errorf("over the relay it comes from %s instead of %s", now, seen)
	}
	turned(true, unblock)
	if now := string(ask(t, c, []byte("?"))); now != seen {
		t.Errorf("over the hole it comes from %s instead of %s", now, seen)
	}
}
