// Command etcd is upstream's etcd server, built from the Go module that cannot be built in place
// because its own go.mod holds local replacements.
package main

import (
	"os"

	"go.etcd.io/etcd/server/v3/etcdmain"
)

func main() { etcdmain.Main(os.Args) }
