package cli

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"time"
	"unicode"

	"bodkin/peer"
)

// knownCode is the file that remembers who made a code that we have used. A code is good
// for one try; a receiver that was killed comes back with it nevertheless, to the same
// sender.
type knownCode struct{ path string }

// knownFor is how long that is remembered.
const knownFor = 7 * 24 * time.Hour

// knownCode names the file by a hash: who finds it learns nothing of the code.
func (a *app) knownCode(server, code string) knownCode {
	dir, err := os.UserConfigDir()
	if err != nil {
		return knownCode{} // then nothing is remembered
	}
	words := strings.FieldsFunc(strings.ToLower(code), func(r rune) bool { return r == '-' || unicode.IsSpace(r) })
	sum := sha256.Sum256([]byte(server + "\n" + strings.Join(words, "-")))
	return knownCode{filepath.Join(dir, "bodkin", "codes", hex.EncodeToString(sum[:16]))}
}

// sender is who made the code, or the zero ID.
func (k knownCode) sender() peer.ID {
	info, err := os.Stat(k.path)
	if err != nil || time.Since(info.ModTime()) > knownFor {
		return peer.ID{}
	}
	b, err := os.ReadFile(k.path)
	if err != nil {
		return peer.ID{}
	}
	id, err := peer.ParseID(strings.TrimSpace(string(b)))
	if err != nil {
		return peer.ID{}
	}
	return id
}

// keep remembers it, and forgets the old ones. That it cannot is no reason to end.
func (k knownCode) keep(id peer.ID) {
	if k.path == "" {
		return
	}
	dir := filepath.Dir(k.path)
	old, _ := os.ReadDir(dir)
	for _, f := range old {
		if info, err := f.Info(); err == nil && time.Since(info.ModTime()) > knownFor {
			_ = os.Remove(filepath.Join(dir, f.Name()))
		}
	}
	if os.MkdirAll(dir, 0o700) == nil {
		_ = os.WriteFile(k.path, []byte(id.String()+"\n"), 0o600)
	}
}

// forget is called when everything has come.
func (k knownCode) forget() { _ = os.Remove(k.path) }
