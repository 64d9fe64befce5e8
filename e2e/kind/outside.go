package kind

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/kithnet/kith/e2e/parts"
)

// network is the engine's network that kind puts its nodes on.
const network = "kind"

func outsideName(cluster string) string { return cluster + "-outside" }

// startOutside puts a host beside the nodes that is no part of the cluster: it serves `agnhost netexec`, and
// knows no route to any pod.
func (c *Cluster) startOutside(ctx context.Context, b *parts.Builder) error {
	archive, err := b.Image(ctx, "agnhost")
	if err != nil {
		return err
	}
	if _, err := c.engine.docker(ctx, "load", "--quiet", "--input", archive); err != nil {
		return fmt.Errorf("outside host: %w", err)
	}
	if _, err := c.engine.docker(ctx, "run", "--detach", "--name", outsideName(c.Name), "--network", network,
		parts.AgnhostImage, "netexec", "--http-port=8080", "--udp-port=8081"); err != nil {
		return fmt.Errorf("outside host: %w", err)
	}
	const format = "{{range .NetworkSettings.Networks}}{{.IPAddress}} {{.GlobalIPv6Address}}{{end}}"
	out, err := c.engine.docker(ctx, "inspect", "--format", format, outsideName(c.Name))
	if err != nil {
		return fmt.Errorf("outside host: %w", err)
	}
	for field := range strings.FieldsSeq(out) {
		address, err := netip.ParseAddr(field)
		if err != nil {
			return fmt.Errorf("outside host: %w", err)
		}
		c.outside = append(c.outside, address)
	}
	return nil
}

func removeOutside(ctx context.Context, e engine, cluster string) error {
	names, err := e.docker(ctx, "ps", "--all", "--format", "{{.Names}}")
	if err != nil || !slices.Contains(strings.Fields(names), outsideName(cluster)) {
		return err
	}
	_, err = e.docker(ctx, "rm", "--force", "--volumes", outsideName(cluster))
	return err
}

// OutsideAddresses are the addresses of a host beside the nodes that is no part of the cluster.
func (c *Cluster) OutsideAddresses() []netip.Addr { return c.outside }

// OutsideRun runs a command on that host.
func (c *Cluster) OutsideRun(ctx context.Context, args ...string) (string, error) {
	return c.engine.docker(ctx, append([]string{"exec", outsideName(c.Name)}, args...)...)
}
