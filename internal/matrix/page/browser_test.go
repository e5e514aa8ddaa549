package page

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// chromium runs the browser without a window, and returns what it printed.
func chromium(t *testing.T, args ...string) string {
	t.Helper()
	path := ""
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if p, err := exec.LookPath(name); err == nil {
			path = p
			break
		}
	}
	if path == "" {
		t.Skip("chromium is not installed: nothing here can open the page")
	}
	// Not the test's own folder: the browser's helpers may write there a moment
	// longer than it runs, and that must not fail the test.
	profile, err := os.MkdirTemp("", "matrix-page-") //nolint:usetesting // see above
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(profile) })
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	c := exec.CommandContext(ctx, path, append([]string{
		"--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--user-data-dir=" + profile,
		"--disable-background-networking", "--disable-component-update", "--no-first-run",
	}, args...)...)
	var stderr strings.Builder
	c.Stderr = &stderr
	c.WaitDelay = 5 * time.Second
	out, err := c.Output()
	if err != nil {
		t.Fatalf("chromium: %v: %s", err, stderr.String())
	}
	return string(out)
}

// open is the page as the browser has it after its script ran. Whatever would go to
// the network goes to a proxy here, which answers nothing and notes the host.
func open(t *testing.T, page, fragment string) (dom string, hosts []string) {
	t.Helper()
	var mu sync.Mutex
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		if !itself.MatchString(q.Host) {
			hosts = append(hosts, q.Host)
		}
		http.Error(w, "there is no network", http.StatusForbidden)
	}))
	path := filepath.Join(t.TempDir(), "matrix.html")
	if err := os.WriteFile(path, []byte(page), 0o600); err != nil {
		t.Fatal(err)
	}
	target := url.URL{Scheme: "file", Path: path, Fragment: fragment}
	dom = chromium(t, "--proxy-server="+proxy.URL, "--dump-dom", target.String())
	proxy.Close() // waits for what is under way
	return dom, hosts
}

// itself is whom the browser asks for its own purposes, whatever the page.
var itself = regexp.MustCompile(`\.(google|googleapis|gvt1)\.com(:\d+)?$`)

func TestBrowserAsksNobody(t *testing.T) {
	t.Parallel()
	page := written(t, sample())
	if _, hosts := open(t, page, ""); len(hosts) > 0 {
		t.Errorf("the page asked %q", hosts)
	}
	// The same look finds a picture from elsewhere where nothing forbids it.
	page = regexp.MustCompile(`<meta http-equiv[^>]*>`).ReplaceAllString(page, `<img src="http://picture.example/x.png">`)
	if _, hosts := open(t, page, ""); !slices.Contains(hosts, "picture.example") {
		t.Errorf("a picture from elsewhere was not noticed, only %q", hosts)
	}
}

func TestBrowserShowsTheHeatMapAndAFailingRun(t *testing.T) {
	t.Parallel()
	dom, _ := open(t, written(t, sample()), "symmetric-random/symmetric-sequential")
	for what, want := range map[string]string{
		"a square":            `<title>linux asks openwrt: 20 of 20 runs direct</title>`,
		"the chosen pair":     `symmetric-random asks symmetric-sequential</h2>`,
		"what it is":          `where it is met: &lt;many&gt; homes`,
		"its run":             `>run 3: relay</button>`,
		"the diagram":         `aria-label="sequence of packets"`,
		"a lifeline":          `>home-b</text>`,
		"a dropped packet":    `class="bad" x=`,
		"the NAT's reason":    `>filtered: address and port</text>`,
		"what was translated": `>→ 203.0.113.10:50000</text>`,
		"what was left out":   `left out: 12 more of data of programs`,
	} {
		if !strings.Contains(dom, want) {
			t.Errorf("%s: no %q in the page", what, want)
		}
	}
}

func TestBrowserShowsARunThatWorked(t *testing.T) {
	t.Parallel()
	dom, _ := open(t, written(t, sample()), "linux/openwrt")
	if !strings.Contains(dom, `>run 1: direct</button>`) || !strings.Contains(dom, `>probe success</text>`) {
		t.Error("no run or no packet of it")
	}
	if n := strings.Count(dom, `class="bad" x="`); n != 1 {
		t.Errorf("%d packets are dropped instead of one, an opener", n)
	}
}
