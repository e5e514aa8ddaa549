package peer

import (
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
)

const (
	pemType     = "PRIVATE KEY"
	maxKeyBytes = 4096
)

// ErrKeyReadable is wrapped by [LoadKey] when others than its owner can read
// the key file.
var ErrKeyReadable = errors.New("others can read the key file")

// LoadKey reads a node key: an Ed25519 private key in PKCS #8 and PEM (RFC
// 8410, RFC 7468), as `openssl genpkey -algorithm ed25519` writes it too. A
// file that others can read is refused: such a key may no longer be ours alone.
func LoadKey(path string) (Key, error) {
	f, err := os.Open(path)
	if err != nil {
		return Key{}, fmt.Errorf("node key: %w", err)
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return Key{}, fmt.Errorf("node key: %w", err)
	}
	if !info.Mode().IsRegular() {
		return Key{}, fmt.Errorf("node key %s: not a regular file", path)
	}
	// Windows keeps permissions in ACLs, which the mode does not show.
	if runtime.GOOS != "windows" && info.Mode().Perm()&0o077 != 0 {
		return Key{}, fmt.Errorf("node key %s: %w (mode %04o): if nobody has copied it, run `chmod 600 %s`",
			path, ErrKeyReadable, info.Mode().Perm(), path)
	}
	text, err := io.ReadAll(io.LimitReader(f, maxKeyBytes))
	if err != nil {
		return Key{}, fmt.Errorf("node key %s: %w", path, err)
	}
	return parseKey(path, text)
}

func parseKey(path string, text []byte) (Key, error) {
	block, _ := pem.Decode(text)
	if block == nil || block.Type != pemType {
		return Key{}, fmt.Errorf("node key %s: no PEM block %q in it; is it a node key?", path, pemType)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return Key{}, fmt.Errorf("node key %s: %w", path, err)
	}
	private, ok := parsed.(ed25519.PrivateKey)
	if !ok {
		return Key{}, fmt.Errorf("node key %s: an %T, a node key is Ed25519", path, parsed)
	}
	return NewKey([ed25519.SeedSize]byte(private.Seed())), nil
}

// Store writes the key to a new file with mode 0600, making its folder with
// mode 0700. It never overwrites: an existing file is an error that wraps
// [fs.ErrExist].
func (k Key) Store(path string) error {
	der, err := x509.MarshalPKCS8PrivateKey(k.signing)
	if err != nil {
		return fmt.Errorf("node key: %w", err)
	}
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("node key: %w", err)
	}
	// Written aside (CreateTemp makes mode 0600), then linked: the name appears
	// with the whole key behind it, or not at all.
	f, err := os.CreateTemp(dir, ".key-*")
	if err != nil {
		return fmt.Errorf("node key: %w", err)
	}
	defer func() { _ = os.Remove(f.Name()) }()
	err = pem.Encode(f, &pem.Block{Type: pemType, Bytes: der})
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("node key %s: %w", path, err)
	}
	if err := os.Link(f.Name(), path); err != nil {
		return fmt.Errorf("node key: %w", err)
	}
	return nil
}

// LoadOrCreateKey reads the key at path, or draws and stores one where none is
// yet. Two processes that start at once agree on one key.
func LoadOrCreateKey(path string) (Key, error) {
	k, err := LoadKey(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return k, err
	}
	if k, err = GenerateKey(); err != nil {
		return Key{}, err
	}
	if err := k.Store(path); errors.Is(err, fs.ErrExist) {
		return LoadKey(path)
	} else if err != nil {
		return Key{}, err
	}
	return k, nil
}
