package peer

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
)

// opensslKey is the private key of RFC 8410 §10.3, byte for byte what
// `openssl genpkey -algorithm ed25519` writes for it.
const opensslKey = `-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC
-----END PRIVATE KEY-----
`

const opensslID = "19bf44096984cdfe8541bac167dc3b96c85086aa30b6b6cb0c5c38ad703166e1"

// file writes a file of a mode and returns its path.
func file(t *testing.T, text string, mode fs.FileMode) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestStoredKeyIsLoaded(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "new", "folder", "key")
	want := NewKey(seed(7))
	if err := want.Store(path); err != nil {
		t.Fatal(err)
	}
	got, err := LoadKey(path)
	if err != nil || got.ID() != want.ID() || !bytes.Equal(got.Private(), want.Private()) {
		t.Fatalf("loaded %v, %v", got, err)
	}
	if runtime.GOOS == "windows" {
		return
	}
	for name, mode := range map[string]fs.FileMode{path: 0o600, filepath.Dir(path): 0o700, filepath.Dir(filepath.Dir(path)): 0o700} {
		if info, err := os.Stat(name); err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s has mode %v, want %v; %v", name, info.Mode(), mode, err)
		}
	}
	left, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(left) != 1 {
		t.Errorf("beside the key: %v, %v", left, err)
	}
}

func TestKeyOfOpenSSL(t *testing.T) {
	t.Parallel()
	k, err := LoadKey(file(t, opensslKey, 0o600))
	if err != nil || k.ID() != id(t, opensslID) {
		t.Fatalf("%v, %v", k, err)
	}
	// Ours is the same file, so that other programs read it.
	path := filepath.Join(t.TempDir(), "key")
	if err := k.Store(path); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(path); err != nil || string(text) != opensslKey {
		t.Errorf("stored as %q, %v", text, err)
	}
}

func TestKeyFileThatOthersCanReadIsRefused(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("Windows keeps permissions in ACLs")
	}
	for _, mode := range []fs.FileMode{0o644, 0o640, 0o604, 0o660, 0o620, 0o602, 0o610, 0o601, 0o777} {
		path := file(t, opensslKey, mode)
		_, err := LoadKey(path)
		if !errors.Is(err, ErrKeyReadable) || !strings.Contains(err.Error(), "chmod 600 "+path) {
			t.Errorf("mode %04o: %v", mode, err)
		}
		if _, err := LoadOrCreateKey(path); !errors.Is(err, ErrKeyReadable) {
			t.Errorf("mode %04o, or create: %v", mode, err)
		}
		if text, err := os.ReadFile(path); err != nil || string(text) != opensslKey {
			t.Errorf("mode %04o: the file is %q now, %v", mode, text, err)
		}
	}
	for _, mode := range []fs.FileMode{0o600, 0o400} {
		if _, err := LoadKey(file(t, opensslKey, mode)); err != nil {
			t.Errorf("mode %04o: %v", mode, err)
		}
	}
}

func TestFilesThatAreNoKey(t *testing.T) {
	t.Parallel()
	other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(other)
	if err != nil {
		t.Fatal(err)
	}
	block := func(kind string, der []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
	}
	for _, c := range []struct{ name, text, want string }{
		{"empty", "", `no PEM block "PRIVATE KEY"`},
		{"text", "correct horse battery staple\n", `no PEM block "PRIVATE KEY"`},
		{"certificate", block("CERTIFICATE", der), `no PEM block "PRIVATE KEY"`},
		{"encrypted", block("ENCRYPTED PRIVATE KEY", der), `no PEM block "PRIVATE KEY"`},
		{"cut off", opensslKey[:60], `no PEM block "PRIVATE KEY"`},
		{"huge", strings.Repeat("x", 1<<20) + opensslKey, `no PEM block "PRIVATE KEY"`},
		{"other key", block("PRIVATE KEY", der), "an *ecdsa.PrivateKey, a node key is Ed25519"},
		{"not PKCS #8", block("PRIVATE KEY", []byte("bytes")), "asn1"},
	} {
		path := file(t, c.text, 0o600)
		if _, err := LoadKey(path); err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v, want %q in it", c.name, err, c.want)
		}
		if _, err := LoadOrCreateKey(path); err == nil {
			t.Errorf("%s: a key was made in its place", c.name)
		}
	}
	dir := t.TempDir()
	if _, err := LoadKey(dir); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("folder: %v", err)
	}
	if _, err := LoadKey(filepath.Join(dir, "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
}

func TestStoreNeverOverwrites(t *testing.T) {
	t.Parallel()
	path := file(t, "something else", 0o600)
	if err := NewKey(seed(1)).Store(path); !errors.Is(err, fs.ErrExist) {
		t.Errorf("Store: %v", err)
	}
	if text, err := os.ReadFile(path); err != nil || string(text) != "something else" {
		t.Errorf("the file is %q now, %v", text, err)
	}
	if err := NewKey(seed(1)).Store(filepath.Join(path, "key")); err == nil {
		t.Error("stored in a folder that is a file")
	}
}

// Node and server, or two commands, may start at once on a new machine.
func TestManyThatCreateAtOnceAgree(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "folder", "key")
	var wg sync.WaitGroup
	keys, errs := make([]Key, 32), make([]error, 32)
	begin := make(chan struct{})
	for i := range keys {
		wg.Go(func() {
			<-begin
			keys[i], errs[i] = LoadOrCreateKey(path)
		})
	}
	close(begin)
	wg.Wait()
	for i := range keys {
		if errs[i] != nil || keys[i].ID() != keys[0].ID() {
			t.Errorf("number %d has %v, %v", i, keys[i], errs[i])
		}
	}
	if k, err := LoadKey(path); err != nil || k.ID() != keys[0].ID() {
		t.Errorf("the file has %v, %v", k, err)
	}
	if left, err := os.ReadDir(filepath.Dir(path)); err != nil || len(left) != 1 {
		t.Errorf("beside the key: %v, %v", left, err)
	}
}
