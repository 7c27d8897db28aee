proto:
	rm -rf twotower/v1
	.venv/bin/python -m grpc_tools.protoc -I protos --python_out=. --grpc_python_out=. --mypy_out=. --mypy_grpc_out=. --plugin=protoc-gen-mypy=.venv/bin/protoc-gen-mypy --plugin=protoc-gen-mypy_grpc=.venv/bin/protoc-gen-mypy_grpc protos/twotower/v1/*.proto
	touch twotower/v1/__init__.py
