package basics

import "github.com/kithnet/kith/e2e/parts"

const namespaceManifest = `
apiVersion: v1
kind: Namespace
metadata: {name: basics}
`

const manifests = `
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: web, namespace: basics}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      tolerations: [{operator: Exists}]
      terminationGracePeriodSeconds: 1
      containers:
      - name: web
        image: ` + parts.AgnhostImage + `
        args: [netexec, --http-port=8080, --udp-port=8081]
        ports: [{containerPort: 8080, hostPort: 18080}]
        readinessProbe: {httpGet: {path: /healthz, port: 8080}, periodSeconds: 1, timeoutSeconds: 5}
        livenessProbe: {tcpSocket: {port: 8080}, periodSeconds: 2, timeoutSeconds: 5, failureThreshold: 10}
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: host, namespace: basics}
spec:
  selector: {matchLabels: {app: host}}
  template:
    metadata: {labels: {app: host}}
    spec:
      hostNetwork: true
      tolerations: [{operator: Exists}]
      terminationGracePeriodSeconds: 1
      containers:
      - name: host
        image: ` + parts.AgnhostImage + `
        args: [netexec, --http-port=18090, --udp-port=-1]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: single, namespace: basics}
spec:
  replicas: 1
  selector: {matchLabels: {app: single}}
  template:
    metadata: {labels: {app: single}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: single
        image: ` + parts.AgnhostImage + `
        args: [netexec, --http-port=8080, --udp-port=8081]
        readinessProbe: {exec: {command: [/agnhost, connect, "127.0.0.1:8080"]}, periodSeconds: 1, timeoutSeconds: 10}
---
apiVersion: v1
kind: Pod
metadata: {name: unhealthy, namespace: basics}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: unhealthy
    image: ` + parts.AgnhostImage + `
    args: [liveness] # healthy for ten seconds
    livenessProbe: {httpGet: {path: /healthz, port: 8080}, periodSeconds: 1, failureThreshold: 2, timeoutSeconds: 5}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: basics}
spec:
  type: NodePort
  ipFamilyPolicy: PreferDualStack
  selector: {app: web}
  ports: [{name: http, port: 80, targetPort: 8080, nodePort: 30080}]
---
apiVersion: v1
kind: Service
metadata: {name: single, namespace: basics}
spec:
  ipFamilyPolicy: PreferDualStack
  selector: {app: single}
  ports: [{name: http, port: 80, targetPort: 8080}]
---
apiVersion: v1
kind: Service
metadata: {name: headless, namespace: basics}
spec:
  clusterIP: None
  ipFamilyPolicy: PreferDualStack
  selector: {app: web}
  ports: [{name: http, port: 8080}]
`
