package image

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
)

// Closure lists the programs given and the shared libraries they load, each at its own path.
func Closure(ctx context.Context, programs ...string) ([]File, error) {
	libs := regexp.MustCompile(`/\S+`)
	var files []File
	for _, p := range programs {
		out, err := exec.CommandContext(ctx, "ldd", p).Output()
		if err != nil {
			return nil, fmt.Errorf("shared libraries of %s: %w", p, err)
		}
		for _, path := range append([]string{p}, libs.FindAllString(string(out), -1)...) {
			real, err := filepath.EvalSymlinks(path)
			if err != nil {
				return nil, fmt.Errorf("shared library of %s: %w", p, err)
			}
			files = append(files, File{Path: path, Source: real})
		}
	}
	return files, nil
}
