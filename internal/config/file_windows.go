package config

import "os"

// keepOwner does nothing: a new file inherits the rights of its folder.
func keepOwner(string, os.FileInfo) error { return nil }
