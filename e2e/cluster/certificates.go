package cluster

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"time"
)

// authority signs certificates.
type authority struct {
	cert *x509.Certificate
	key  crypto.Signer
}

// subject is what a certificate says.
type subject struct {
	user   string
	groups []string
	names  []string
	addrs  []netip.Addr
}

// pair is a certificate and its key, PEM-encoded.
type pair struct{ cert, key []byte }

func (c *Cluster) pkiDir() string { return filepath.Join(c.dir, "pki") }

// makeCertificates makes what kubeadm would: one authority for the API, one for aggregation, the API
// server's certificates, the key of service-account tokens, and a kubeconfig for each client.
func (c *Cluster) makeCertificates(context.Context) error {
	if err := os.MkdirAll(c.pkiDir(), 0o700); err != nil {
		return err
	}
	ca, err := newAuthority("kubernetes", filepath.Join(c.pkiDir(), "ca"))
	if err != nil {
		return err
	}
	front, err := newAuthority("front-proxy-ca", filepath.Join(c.pkiDir(), "front-proxy-ca"))
	if err != nil {
		return err
	}
	api := c.Members[0].Addresses
	service := c.serviceCIDRs()[0].Addr().Next()
	for _, leaf := range []struct {
		file string
		by   authority
		what subject
	}{
		{"apiserver", ca, subject{user: "kube-apiserver",
			names: []string{"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"},
			addrs: append([]netip.Addr{service, netip.MustParseAddr("127.0.0.1")}, api...)}},
		{"apiserver-kubelet-client", ca, subject{user: "kube-apiserver-kubelet-client", groups: []string{"system:masters"}}},
		{"front-proxy-client", front, subject{user: "front-proxy-client"}},
	} {
		p, err := leaf.by.issue(leaf.what)
		if err != nil {
			return err
		}
		if err := p.write(filepath.Join(c.pkiDir(), leaf.file)); err != nil {
			return err
		}
	}
	if err := writeTokenKey(filepath.Join(c.pkiDir(), "sa")); err != nil {
		return err
	}
	return c.writeKubeconfigs(ca)
}

func (c *Cluster) writeKubeconfigs(ca authority) error {
	clients := map[string]subject{
		c.Kubeconfig():                     {user: "kubernetes-admin", groups: []string{"system:masters"}},
		c.kubeconfig("controller-manager"): {user: "system:kube-controller-manager"},
		c.kubeconfig("scheduler"):          {user: "system:kube-scheduler"},
		c.kubeconfig("kube-proxy"):         {user: "system:kube-proxy"},
	}
	for _, n := range c.Members {
		clients[c.kubeconfig(n.Name)] = subject{user: "system:node:" + n.Name, groups: []string{"system:nodes"}}
	}
	for path, who := range clients {
		if err := c.writeKubeconfig(ca, path, who); err != nil {
			return err
		}
	}
	return nil
}

func (c *Cluster) writeKubeconfig(ca authority, path string, who subject) error {
	p, err := ca.issue(who)
	if err != nil {
		return err
	}
	encode := base64.StdEncoding.EncodeToString
	content := fmt.Sprintf(`apiVersion: v1
kind: Config
clusters:
- {name: %[1]s, cluster: {server: "https://%[2]s", certificate-authority-data: %[3]s}}
users:
- {name: %[6]q, user: {client-certificate-data: %[4]s, client-key-data: %[5]s}}
contexts:
- {name: %[1]s, context: {cluster: %[1]s, user: %[6]q}}
current-context: %[1]s
`, c.Name, netip.AddrPortFrom(c.apiAddress(), apiPort), encode(pemCert(ca.cert.Raw)), encode(p.cert), encode(p.key), who.user)
	return os.WriteFile(path, []byte(content), 0o600)
}

// KubeletConfig returns the path of a kubeconfig with the certificate of a node's kubelet, which it issues if the cluster
// has no node of that name.
func (c *Cluster) KubeletConfig(node string) (string, error) {
	path := c.kubeconfig(node)
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	ca, err := tls.LoadX509KeyPair(filepath.Join(c.pkiDir(), "ca.crt"), filepath.Join(c.pkiDir(), "ca.key"))
	if err != nil {
		return "", fmt.Errorf("read the authority of cluster %s: %w", c.Name, err)
	}
	key, ok := ca.PrivateKey.(crypto.Signer)
	if !ok {
		return "", fmt.Errorf("the key of cluster %s's authority cannot sign", c.Name)
	}
	who := subject{user: "system:node:" + node, groups: []string{"system:nodes"}}
	return path, c.writeKubeconfig(authority{cert: ca.Leaf, key: key}, path, who)
}

func (c *Cluster) kubeconfig(name string) string { return filepath.Join(c.pkiDir(), name+".conf") }

const apiPort = 6443

// apiAddress is where the API server is reached: on the first node, in the services' first family.
func (c *Cluster) apiAddress() netip.Addr {
	for _, a := range c.Members[0].Addresses {
		if a.Is4() {
			return a
		}
	}
	return c.Members[0].Addresses[0]
}

func unsigned(s subject) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, err
	}
	t := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: s.user, Organization: s.groups},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().AddDate(1, 0, 0),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
		DNSNames:     s.names,
	}
	for _, a := range s.addrs {
		t.IPAddresses = append(t.IPAddresses, net.IP(a.AsSlice()))
	}
	return t, nil
}

func newAuthority(name, file string) (authority, error) {
	t, err := unsigned(subject{user: name})
	if err != nil {
		return authority{}, err
	}
	t.IsCA, t.BasicConstraintsValid, t.KeyUsage = true, true, x509.KeyUsageCertSign|x509.KeyUsageDigitalSignature
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return authority{}, err
	}
	p, cert, err := sign(t, authority{cert: t, key: key}, key)
	if err != nil {
		return authority{}, err
	}
	return authority{cert: cert, key: key}, p.write(file)
}

func (a authority) issue(s subject) (pair, error) {
	t, err := unsigned(s)
	if err != nil {
		return pair{}, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return pair{}, err
	}
	p, _, err := sign(t, a, key)
	return p, err
}

func sign(t *x509.Certificate, by authority, key *ecdsa.PrivateKey) (pair, *x509.Certificate, error) {
	der, err := x509.CreateCertificate(rand.Reader, t, by.cert, key.Public(), by.key)
	if err != nil {
		return pair{}, nil, fmt.Errorf("certificate of %s: %w", t.Subject.CommonName, err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return pair{}, nil, err
	}
	encoded, err := pemKey(key)
	return pair{cert: pemCert(der), key: encoded}, cert, err
}

func pemCert(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func pemKey(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalECPrivateKey(key)
	return pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), err
}

func (p pair) write(file string) error {
	if err := os.WriteFile(file+".crt", p.cert, 0o644); err != nil {
		return err
	}
	return os.WriteFile(file+".key", p.key, 0o600)
}

// writeTokenKey writes the key pair that signs service-account tokens.
func writeTokenKey(file string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	private, err := pemKey(key)
	if err != nil {
		return err
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return err
	}
	if err := os.WriteFile(file+".key", private, 0o600); err != nil {
		return err
	}
	return os.WriteFile(file+".pub", pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), 0o644)
}
