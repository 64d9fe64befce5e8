package cluster

import (
	"embed"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"text/template"

	"github.com/kithnet/kith/e2e/node"
	"github.com/kithnet/kith/e2e/parts"
)

//go:embed files
var files embed.FS

const nodePath = node.BinDir + ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// values fill the templates in files.
type values struct {
	Bin, Etc, ClusterCIDR    string
	Proxy                    Proxy
	DNS                      netip.Addr
	PauseImage, CoreDNSImage string
}

func (c *Cluster) render(w io.Writer, name string) error {
	t, err := template.ParseFS(files, "files/"+name)
	if err != nil {
		return err
	}
	dns := c.serviceCIDRs()[0].Addr()
	for range 10 {
		dns = dns.Next()
	}
	return t.Execute(w, values{
		Bin: node.BinDir, Etc: node.ConfigDir, ClusterCIDR: join(c.PodCIDRs()), Proxy: c.Proxy, DNS: dns,
		PauseImage: parts.PauseImage, CoreDNSImage: parts.CoreDNSImage,
	})
}

func join[T fmt.Stringer](list []T) string {
	var s []string
	for _, v := range list {
		s = append(s, v.String())
	}
	return strings.Join(s, ",")
}

// writeNode writes all files of one node and returns the path of its Config.
func (c *Cluster) writeNode(n Node) (string, error) {
	dir := c.NodeDir(n.Name)
	etc := filepath.Join(dir, "etc")
	if err := os.MkdirAll(etc, 0o755); err != nil {
		return "", err
	}
	for _, name := range []string{"containerd.toml", "kubelet.yaml", "kube-proxy.yaml"} {
		var b strings.Builder
		if err := c.render(&b, name); err != nil {
			return "", err
		}
		if err := os.WriteFile(filepath.Join(etc, name), []byte(b.String()), 0o644); err != nil {
			return "", err
		}
	}
	// No name server outside: names of the cluster are all there is.
	if err := os.WriteFile(filepath.Join(etc, "resolv.conf"), nil, 0o644); err != nil {
		return "", err
	}
	if err := c.copySecrets(n, etc); err != nil {
		return "", err
	}
	if c.CNI == None {
		if err := os.CopyFS(filepath.Join(dir, "cni-bin"), os.DirFS(c.Set.CNI())); err != nil {
			return "", fmt.Errorf("reference CNI plugins: %w", err)
		}
	}
	path := filepath.Join(dir, "node.json")
	return path, c.nodeConfig(n).Save(path)
}

func (c *Cluster) copySecrets(n Node, etc string) error {
	secrets := []string{"ca.crt", "kube-proxy.conf", n.Name + ".conf"}
	if n.Name == c.Members[0].Name {
		entries, err := os.ReadDir(c.pkiDir())
		if err != nil {
			return err
		}
		for _, e := range entries {
			secrets = append(secrets, e.Name())
		}
	}
	for _, s := range secrets {
		content, err := os.ReadFile(filepath.Join(c.pkiDir(), s))
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(etc, s), content, 0o600); err != nil {
			return err
		}
	}
	return nil
}

func (c *Cluster) nodeConfig(n Node) node.Config {
	config := node.Config{
		Name: n.Name, Netns: filepath.Join(netnsDir, n.Name), Dir: c.NodeDir(n.Name), Bin: c.Set.Bin(),
		Images: []string{c.Set.Images(), c.imageDir()},
	}
	for _, m := range c.Members {
		for _, a := range m.Addresses {
			config.Hosts = append(config.Hosts, a.String()+" "+m.Name)
		}
	}
	etc := func(name string) string { return filepath.Join(node.ConfigDir, name) }
	config.Services = append(config.Services, node.Service{Name: "containerd", Args: []string{"containerd", "-c", etc("containerd.toml")}})
	if n.Name == c.Members[0].Name {
		config.Services = append(config.Services, c.controlPlane()...)
	}
	config.Services = append(config.Services,
		node.Service{Name: "kubelet", Args: []string{"node", "boot", "kubelet",
			"--config=" + etc("kubelet.yaml"), "--kubeconfig=" + etc(n.Name+".conf"), "--hostname-override=" + n.Name,
			"--node-ip=" + join(n.Addresses), "--root-dir=/var/lib/kubelet", "--node-labels=" + c.labels(n)}},
		node.Service{Name: "kube-proxy", Args: []string{"kube-proxy", "--config=" + etc("kube-proxy.yaml"), "--hostname-override=" + n.Name}},
	)
	return config
}

func (c *Cluster) labels(n Node) string {
	if n.Name == c.Members[0].Name {
		return "kith.network/e2e=control-plane"
	}
	return "kith.network/e2e=worker"
}

// controlPlane lists the first node's further services. etcd does not sync: its data is worth nothing.
func (c *Cluster) controlPlane() []node.Service {
	pki := func(name string) string { return filepath.Join(node.ConfigDir, name) }
	asClient := func(name string) []string {
		conf := pki(name + ".conf")
		return []string{"--kubeconfig=" + conf, "--authentication-kubeconfig=" + conf, "--authorization-kubeconfig=" + conf,
			"--bind-address=127.0.0.1", "--leader-elect=false"}
	}
	services := "--service-cluster-ip-range=" + join(c.serviceCIDRs())
	return []node.Service{
		{Name: "etcd", Args: []string{"etcd", "--data-dir=/var/lib/etcd", "--unsafe-no-fsync",
			"--listen-client-urls=http://127.0.0.1:2379", "--advertise-client-urls=http://127.0.0.1:2379", "--listen-peer-urls=http://127.0.0.1:2380"}},
		{Name: "kube-apiserver", Args: []string{"kube-apiserver", services,
			"--advertise-address=" + c.apiAddress().String(), fmt.Sprintf("--secure-port=%d", apiPort), "--etcd-servers=http://127.0.0.1:2379",
			"--client-ca-file=" + pki("ca.crt"), "--tls-cert-file=" + pki("apiserver.crt"), "--tls-private-key-file=" + pki("apiserver.key"),
			"--kubelet-client-certificate=" + pki("apiserver-kubelet-client.crt"), "--kubelet-client-key=" + pki("apiserver-kubelet-client.key"),
			"--kubelet-preferred-address-types=InternalIP,Hostname",
			"--service-account-issuer=https://kubernetes.default.svc.cluster.local",
			"--service-account-key-file=" + pki("sa.pub"), "--service-account-signing-key-file=" + pki("sa.key"),
			"--requestheader-client-ca-file=" + pki("front-proxy-ca.crt"), "--proxy-client-cert-file=" + pki("front-proxy-client.crt"),
			"--proxy-client-key-file=" + pki("front-proxy-client.key"), "--requestheader-allowed-names=front-proxy-client",
			"--requestheader-extra-headers-prefix=X-Remote-Extra-", "--requestheader-group-headers=X-Remote-Group",
			"--requestheader-username-headers=X-Remote-User",
			"--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction", "--allow-privileged=true"}},
		{Name: "kube-controller-manager", Args: append([]string{"kube-controller-manager", services,
			"--allocate-node-cidrs=true", "--cluster-cidr=" + join(c.PodCIDRs()), "--node-cidr-mask-size-ipv4=26", "--use-service-account-credentials=true",
			"--root-ca-file=" + pki("ca.crt"), "--service-account-private-key-file=" + pki("sa.key"),
			"--cluster-signing-cert-file=" + pki("ca.crt"), "--cluster-signing-key-file=" + pki("ca.key")}, asClient("controller-manager")...)},
		{Name: "kube-scheduler", Args: append([]string{"kube-scheduler"}, asClient("scheduler")...)},
	}
}
