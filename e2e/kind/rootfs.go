package kind

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/kithnet/kith/e2e/parts"
)

// basePackages are what kind's own base image installs, less what only other storage and rootless modes need.
func basePackages() []string {
	return []string{
		"systemd", "systemd-sysv", "dbus", "conntrack", "iptables", "nftables", "iproute2", "ethtool", "util-linux", "mount",
		"kmod", "libseccomp2", "e2fsprogs", "bash", "ca-certificates", "curl", "jq", "procps", "socat", "hostname", "iputils-ping",
	}
}

// trimScript does to a fresh Debian tree what kind's base image does: kind's files in (the module cache lost their
// modes), no services but the node's own.
const trimScript = `set -e
umask 022
cd "$1"
cp -r --no-preserve=mode,ownership "$2/etc" "$2/kind" "$2/usr" .
chmod 755 usr/local/bin/* kind/bin/*
mkdir -p kind/manifests kind/images etc/kubernetes/manifests opt/cni/bin
rm -rf lib/systemd/system/multi-user.target.wants/* etc/systemd/system/*.wants/* lib/systemd/system/local-fs.target.wants/* \
  lib/systemd/system/sockets.target.wants/*udev* lib/systemd/system/sockets.target.wants/*initctl* \
  lib/systemd/system/basic.target.wants/* lib/systemd/system/sysinit.target.wants/systemd-tmpfiles-setup.service
echo ReadKMsg=no >> etc/systemd/journald.conf
ln -sfn /usr/lib/systemd/systemd usr/sbin/init
rm -rf var/cache/apt/archives/*.deb var/lib/apt/lists/* usr/share/doc usr/share/man usr/share/locale
chroot . systemctl enable kubelet.service containerd.service undo-mount-hacks.service
chroot . systemctl mask systemd-binfmt.service`

// rootfs returns a folder with a Debian system and kind's own node files, made once per Debian release and
// version of kind.
func rootfs(ctx context.Context, b *parts.Builder, d daemon) (string, error) {
	release, err := codename()
	if err != nil {
		return "", err
	}
	module, err := parts.ModuleDir(ctx, "sigs.k8s.io/kind@"+parts.KindVersion)
	if err != nil {
		return "", err
	}
	key := sha256.Sum256([]byte(strings.Join(append(basePackages(), release, parts.KindVersion, trimScript), " ")))
	dir := filepath.Join(b.Cache, "kind", "rootfs-"+release+"-"+hex.EncodeToString(key[:4]))
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	b.Say("installing Debian %s for the node image (a minute or two)", release)
	work := dir + ".new"
	if err := os.RemoveAll(work); err != nil {
		return "", err
	}
	debootstrap := d.engine().command(ctx, d.engine().find("debootstrap"), "--variant=minbase", "--include="+strings.Join(basePackages(), ","), release, work)
	debootstrap.Env = append(debootstrap.Env, "DEBOOTSTRAP_DIR="+filepath.Join(d.Tools, "usr", "share", "debootstrap"))
	if _, err := run(debootstrap); err != nil {
		return "", err
	}
	files := filepath.Join(module, "images", "base", "files")
	if _, err := run(exec.CommandContext(ctx, "sh", "-c", trimScript, "sh", work, files)); err != nil {
		return "", err
	}
	return dir, os.Rename(work, dir)
}

// codename is this machine's Debian release: programs built here run with its C library.
func codename() (string, error) {
	data, err := os.ReadFile("/etc/os-release")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(data)) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "VERSION_CODENAME="); ok {
			return strings.Trim(name, `"`), nil
		}
	}
	return "", errors.New("/etc/os-release names no Debian release")
}
