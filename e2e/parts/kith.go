package parts

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/kithnet/kith/e2e/image"
)

// KithVersion is the version under which the checkout's image is made.
const KithVersion = "v0.1.0"

// KithImage is the name under which clusters know the checkout's image.
const KithImage = "docker.io/kithnet/kith:" + KithVersion

// Kith builds the checkout's static programs and their image, build/kith-image.tar, and returns its
// path. The Go client's own cache decides what has to be compiled again.
func (b *Builder) Kith(ctx context.Context) (string, error) {
	root := filepath.Dir(b.Module)
	bin := filepath.Join(root, "build", "image")
	if err := os.MkdirAll(bin, 0o755); err != nil {
		return "", err
	}
	const plugins = "github.com/containernetworking/plugins/plugins/"
	img := image.Image{Names: []string{KithImage}, Entrypoint: []string{"/kith-agent"}}
	b.Say("building the image of Kith")
	for _, p := range []struct{ name, pkg string }{
		{"kith-agent", "./cmd/kith-agent"},
		{"kith-cni", "./cmd/kith-cni"},
		{"kith", "./cmd/kith"},
		{"kith-wireguard", "./cmd/kith-wireguard"},
		{"portmap", plugins + "meta/portmap"},
		{"bandwidth", plugins + "meta/bandwidth"},
		{"loopback", plugins + "main/loopback"},
	} {
		out := filepath.Join(bin, p.name)
		_, err := run(ctx, root, []string{"CGO_ENABLED=0"}, "go", "build", "-trimpath",
			"-ldflags", "-s -w -X main.version="+KithVersion, "-o", out, p.pkg)
		if err != nil {
			return "", fmt.Errorf("build %s: %w", p.name, err)
		}
		img.Files = append(img.Files, image.File{Path: "/" + p.name, Source: out})
	}
	archive := filepath.Join(root, "build", "kith-image.tar")
	if err := image.Write(archive, img); err != nil {
		return "", err
	}
	b.Say("%s is %s", KithImage, archive)
	return archive, nil
}
