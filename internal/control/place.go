package control

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"bodkin/peer"
)

// maxPath is the longest path of a socket that all systems take.
const maxPath = 103

// Path is where the node of that ID answers. A part of the ID names it: the
// whole might not fit.
func Path(id peer.ID) (string, error) {
	dir, err := folder()
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, id.String()[:20]+".sock"), nil
}

// serviceFolder is where a service of the system has its socket, as its unit says.
const serviceFolder = "/run/bodkin"

// places are where the node of that ID may answer: for root, a service of the system
// as well.
func places(id peer.ID) ([]string, error) {
	path, err := Path(id)
	if err != nil {
		return nil, err
	}
	if os.Getuid() != 0 {
		return []string{path}, nil
	}
	return []string{path, filepath.Join(serviceFolder, filepath.Base(path))}, nil
}

// folder is a folder of this user alone, made if need be.
func folder() (string, error) {
	dir := filepath.Join(os.TempDir(), fmt.Sprintf("bodkin-%d", os.Getuid()))
	if runtimeDir := os.Getenv("XDG_RUNTIME_DIR"); runtimeDir != "" {
		dir = filepath.Join(runtimeDir, "bodkin")
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("control socket: %w", err)
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return "", fmt.Errorf("control socket: %w", err)
	}
	if !info.IsDir() || runtime.GOOS != "windows" && (info.Mode().Perm()&0o077 != 0 || !ours(info)) {
		return "", fmt.Errorf("control socket: folder %s is not this user's alone; remove it", dir)
	}
	return dir, nil
}
