package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/rogpeppe/go-internal/lockedfile"
)

// exclusively does something with a file while no other process does. It is told where
// the file really is, should path be a link.
func exclusively(path string, do func(path string) error) error {
	real, err := filepath.EvalSymlinks(path)
	if errors.Is(err, fs.ErrNotExist) {
		real, err = path, os.MkdirAll(filepath.Dir(path), 0o700)
	}
	if err != nil {
		return fmt.Errorf("configuration: %w", err)
	}
	// The file itself cannot be locked: it is another one after each change.
	unlock, err := lockedfile.MutexAt(real + ".lock").Lock()
	if err != nil {
		return fmt.Errorf("configuration: %w", err)
	}
	defer unlock()
	return do(real)
}

// replace writes a file anew: who reads it meanwhile, or after a crash, finds the old
// text or the new one. Its mode and its owner stay; a new file is for its owner alone.
func replace(path string, text []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".config-*") // with mode 0600
	if err != nil {
		return fmt.Errorf("configuration: %w", err)
	}
	defer func() { _ = os.Remove(f.Name()) }()
	_, err = f.Write(text)
	if info, missing := os.Stat(path); missing == nil {
		err = errors.Join(err, keepOwner(f.Name(), info), os.Chmod(f.Name(), info.Mode().Perm()))
	}
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("configuration %s: %w", path, err)
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return fmt.Errorf("configuration: %w", err)
	}
	return nil
}
