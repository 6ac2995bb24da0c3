"""A small service of two cornerstones and two endpoints, whose hooks must not run."""

HOOKS = """\
    from asgihive.hive import CornerstoneHooks

    class CornerstoneHooksImpl(CornerstoneHooks):
        def pre_endpoint_setup(self):
            raise AssertionError("listing starts nothing")
"""

SERVICE = {
    "main.py": """\
        from asgihive.hive import Hive, HiveConfig

        def create():
            return Hive(
                HiveConfig(
                    cornerstone_package_path="./cornerstones",
                    endpoint_package_paths=("./endpoints", "./admin"),
                    api_prefix="/api",
                ),
                docs=False,
                entry_points=False,
            )

        app = create()
        """,
    "cornerstones/db/__init__.py": HOOKS,
    "cornerstones/auth.py": 'requires = ("db",)\n',
    "endpoints/notes/__init__.py": "",
    "endpoints/notes/router.py": """\
        import asgihive.asgi
        import cornerstones.db

        router = asgihive.asgi.Router()

        @router.get("")
        async def list_notes(limit: int = 10) -> list[str]:
            return []

        @router.delete("/{number}")
        def remove(number: int) -> None:
            ...

        @router.websocket("/changes")
        async def changes(websocket) -> None:
            ...
        """,
    "admin/usage.py": """\
        from asgihive.asgi import Router

        requires = ("endpoints.notes",)
        router = Router()

        @router.get("")
        async def usage() -> dict[str, int]:
            return {}
        """,
}

ROUTES = """\
GET        /api/endpoints/notes           endpoints.notes  list_notes  endpoints/notes/router.py:6
DELETE     /api/endpoints/notes/{number}  endpoints.notes  remove      endpoints/notes/router.py:10
WEBSOCKET  /api/endpoints/notes/changes   endpoints.notes  changes     endpoints/notes/router.py:14
GET        /api/admin/usage               admin.usage      usage       admin/usage.py:6
"""

GRAPH = """\
main:app: starts from top to bottom, stops from bottom to top

cornerstones
  1. cornerstones.db                              cornerstones/db/__init__.py
  2. cornerstones.auth  requires cornerstones.db  cornerstones/auth.py

endpoints
  3. endpoints.notes                              endpoints/notes/__init__.py
  4. admin.usage        requires endpoints.notes  admin/usage.py
"""
